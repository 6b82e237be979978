"""``python:package.module:factory``: data of the user's own making."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import torch

from compress_then_export.data.dataset import Dataset
from compress_then_export.data.errors import DataError
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.split import StreamSplit
from compress_then_export.models.errors import ModelError
from compress_then_export.models.source import import_factory, one_line


def open_python(request: Request) -> Opened | Dataset:
    """Call the factory with `args`; it returns a Dataset of ours, or (train, test) map-style data sets.

    Items are (image, label) with a uint8 or floating tensor or array [C, H, W]; whatever randomness the data
    set draws from torch is seeded per item and epoch. Images are not normalised further unless the recipe
    gives mean and std. The number of classes is `num_classes`, or the data set's `num_classes` or `classes`.

    Raises:
        DataError: the factory is missing, fails, or returns something else.
    """
    try:
        factory = import_factory(request.source, request.place)
    except ModelError as error:
        raise DataError(str(error)) from error
    args = request.options.get("args") or {}
    if not isinstance(args, Mapping):
        raise DataError(f"data args must map argument names to values, got {type(args).__name__}")
    try:
        made = factory(**args)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data {request.source} cannot be made: {one_line(error)}") from error
    if isinstance(made, Dataset):
        return made
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise DataError(f"data {request.source} must return (train, test), got {type(made).__name__}")
    workers = int(request.options.get("workers", 0))
    splits = [_split(part, name, request, workers) for part, name in zip(made, ("train", "test"), strict=True)]
    train = splits[0]
    image = train.read(0, augment=False, seed=0)[0]
    plain = Normalisation(mean=(0.0,) * image.shape[0], std=(1.0,) * image.shape[0])
    return Opened(train=train, test=splits[1], num_classes=_classes(made[0], request), normalisation=plain)


def _split(items: Any, name: str, request: Request, workers: int) -> StreamSplit:
    if not isinstance(items, Sized) or not hasattr(items, "__getitem__"):
        raise DataError(
            f"data {request.source}: the {name} data is a {type(items).__name__} without length or index; "
            "return map-style data sets"
        )
    if len(items) == 0:
        raise DataError(f"data {request.source}: the {name} data is empty")
    try:
        first = _as_tensor(items[0][0], False)
    except Exception as error:
        raise DataError(f"data {request.source}: {name} item 0 is no (image, label): {one_line(error)}") from error
    if first.ndim != 3:
        raise DataError(f"data {request.source}: {name} images are {tuple(first.shape)}, not (channels, height, width)")
    shape = (first.shape[0], first.shape[1], first.shape[2])
    items_any: Any = items
    return StreamSplit(items=items_any, indices=range(len(items)), prepare=_as_tensor, shape=shape, workers=workers)


def _as_tensor(image: Any, augment: bool) -> torch.Tensor:
    tensor = torch.as_tensor(image)
    return tensor if tensor.dtype == torch.uint8 else tensor.float()


def _classes(items: Any, request: Request) -> int:
    if "num_classes" in request.options:
        return int(request.options["num_classes"])
    count = getattr(items, "num_classes", None)
    if count is None:
        classes = getattr(items, "classes", None)
        count = len(classes) if isinstance(classes, Sized) else None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DataError(f"data {request.source}: set data num_classes, or give the data set the attribute num_classes")
    return count
