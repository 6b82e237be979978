"""What opened data must hold before anything is trained on it."""

from __future__ import annotations

import torch

from compress_then_export.data.errors import DataError
from compress_then_export.data.split import Split, StreamSplit

Shape = tuple[int, int, int]


def check_not_empty(source: str, train: Split, test: Split) -> None:
    """Raise DataError when a split has no items."""
    for name, split in (("train", train), ("test", test)):
        if len(split) == 0:
            raise DataError(f"data {source}: the {name} split is empty")


def check_equal_shapes(source: str, train: Split, test: Split) -> Shape:
    """Return the (channels, height, width) of both splits, or raise DataError when they differ."""
    shape, other = _shape(train), _shape(test)
    if shape != other:
        raise DataError(f"data {source}: training images are {_text(shape)} but test images {_text(other)}")
    return shape


def check_shape(source: str, shape: Shape, wanted: Shape | None, *, fixed_size: bool, can_resize: bool) -> None:
    """Raise DataError naming both shapes when the data does not fit the model."""
    if wanted is None or shape == wanted or (shape[0] == wanted[0] and not fixed_size):
        return
    ways = ["choose another model"]
    if can_resize:
        ways.insert(0, "set data resize: true")
    if shape[1:] == wanted[1:] or not fixed_size:
        ways.insert(0, f"set model args in_channels: {shape[0]} (builtin models)")
    way = ", ".join(ways[:-1]) + (" or " if len(ways) > 1 else "") + ways[-1]
    raise DataError(f"data {source} gives {_text(shape)} images but the model wants {_text(wanted)}: {way}")


def check_values(source: str, name: str, split: Split, num_classes: int) -> None:
    """Raise DataError for labels out of range, NaN or infinite values; streams are checked when read."""
    if isinstance(split, StreamSplit):
        return
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise DataError(
            f"data {source}: {name} label {wrong} lies outside 0..{num_classes - 1} ({num_classes} classes)"
        )
    if split.images.is_floating_point():
        for start in range(0, len(split), 1024):
            finite = torch.isfinite(split.images[start : start + 1024]).flatten(1).all(dim=1)
            if not bool(finite.all()):
                index = start + int((~finite).nonzero()[0])
                raise DataError(f"data {source}: {name} image {index} has NaN or infinite values; clean the data")


def _shape(split: Split) -> Shape:
    if isinstance(split, StreamSplit):
        return split.shape
    _, channels, height, width = split.images.shape
    return channels, height, width


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
