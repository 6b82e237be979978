"""What can go wrong when a model is named, built or filled with weights."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be had; the message is one sentence naming the setting and the way out."""


class WeightsError(ModelError):
    """A weights file is missing, damaged, unsafe or does not fit the model."""
