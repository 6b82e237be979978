"""What can go wrong when data is opened."""

from __future__ import annotations


class DataError(ValueError):
    """Data cannot be had or does not fit; the message is one sentence naming the key and the way out."""


class DataKeyError(DataError):
    """A key of the description of the data is unknown or has a wrong value, whatever the data are."""
