"""What can go wrong when a model is named, built or filled with weights."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from compress.suggestion import did_you_mean


class ModelError(ValueError):
    """A model cannot be had; the message is one sentence naming the setting and the way out."""


class WeightsError(ModelError):
    """A weights file is missing, damaged, unsafe or does not fit the model."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` when a known name is close, otherwise the known names, if few."""
    names = sorted(known)
    return did_you_mean(name, names) if len(names) <= 20 or get_close_matches(name, names, n=1) else ""
