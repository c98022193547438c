"""What was found, as one HTML page; and attention to click through, for notebooks."""

from minicircuits.report.notebook import attention

__all__ = ["attention"]
