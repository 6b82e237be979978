"""The data of the command: opened by name, checked and read in batches that depend on (seed, epoch) alone."""

from __future__ import annotations

from compress_then_export.data.dataset import Dataset
from compress_then_export.data.errors import DataError
from compress_then_export.data.loader import Loader
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.source import open_data

__all__ = ["DataError", "Dataset", "Loader", "Normalisation", "open_data"]
