"""The error of this room."""

from __future__ import annotations


class ExportError(ValueError):
    """A model cannot be written as asked; the message says what is wrong and the way out."""
