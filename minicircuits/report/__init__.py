"""What the other rooms find, in numbers first: then in words for the terminal, and as a page."""

from minicircuits.report.notebook import attention

__all__ = ["attention"]
