"""The networks of the command: built by name, described before they are built, filled from weights files."""

from __future__ import annotations

from compress_then_export.models.build import build, check_input, describe
from compress_then_export.models.catalogue import builtin_names
from compress_then_export.models.errors import ModelError, WeightsError
from compress_then_export.models.option_a import OptionA
from compress_then_export.models.source import ModelInfo
from compress_then_export.models.weights import load_weights

__all__ = [
    "ModelError",
    "ModelInfo",
    "OptionA",
    "WeightsError",
    "build",
    "builtin_names",
    "check_input",
    "describe",
    "load_weights",
]
