"""What an opener of a source hands over, before shapes and labels are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.split import Split


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of an opener.

    Attributes:
        source: as in the recipe.
        place: what follows the colon in the source: a folder, a file or an import path; "" for bare sources.
        options: the keys of the recipe's data section without `source`, their names checked already.
        input_shape: (channels, height, width) that the model takes, or None when it does not say.
    """

    source: str
    place: str
    options: Mapping[str, Any]
    input_shape: tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What an opener found.

    Attributes:
        train, test: splits with images as stored.
        num_classes: labels must lie in 0..num_classes-1.
        class_names: one a class, or None.
        augmentation: the source's standard one for images in memory.
        normalisation: None means: measure it on the training images.
    """

    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...] | None = None
    augmentation: Augmentation | None = None
    normalisation: Normalisation | None = None
