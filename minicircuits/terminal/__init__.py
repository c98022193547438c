"""Findings as text, at 80 columns."""
