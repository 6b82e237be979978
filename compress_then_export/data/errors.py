"""What can go wrong when data is opened."""

from __future__ import annotations


class DataError(ValueError):
    """Data cannot be had or does not fit; the message is one sentence naming the key and the way out."""
