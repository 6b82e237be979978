"""Opening the data that a recipe names, and checking that it fits before any training starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.suggestion import did_you_mean
from compress_then_export.data.checks import check_equal_shapes, check_not_empty, check_shape, check_values
from compress_then_export.data.cifar import open_cifar10, open_cifar100
from compress_then_export.data.dataset import Dataset
from compress_then_export.data.digits import open_digits
from compress_then_export.data.errors import DataError, DataKeyError
from compress_then_export.data.idx import open_mnist
from compress_then_export.data.imagefolder import open_imagefolder
from compress_then_export.data.normalisation import Normalisation, measure
from compress_then_export.data.npz import open_npz
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.patches import open_patches
from compress_then_export.data.python_source import open_python
from compress_then_export.data.resize import resize
from compress_then_export.data.split import Split, StreamSplit, TensorSplit


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of source: what follows the colon ("" for nothing), its keys beside the common ones."""

    open: Callable[[Request], Opened | Dataset]
    place: str
    keys: tuple[str, ...] = ()


_COMMON_KEYS = ("source", "augment", "mean", "std", "train_size", "test_size")
_KINDS: dict[str, _Kind] = {
    "digits": _Kind(open=open_digits, place=""),
    "patches": _Kind(open=open_patches, place="", keys=("resize",)),
    "mnist": _Kind(open=open_mnist, place="DIR", keys=("resize", "num_classes")),
    "cifar10": _Kind(open=open_cifar10, place="DIR", keys=("resize",)),
    "cifar100": _Kind(open=open_cifar100, place="DIR", keys=("resize",)),
    "imagefolder": _Kind(open=open_imagefolder, place="DIR", keys=("workers",)),
    "npz": _Kind(open=open_npz, place="FILE", keys=("resize", "num_classes")),
    "python": _Kind(open=open_python, place="package.module:factory", keys=("args", "num_classes", "workers")),
}
_LEAST = {"train_size": 1, "test_size": 1, "num_classes": 2, "workers": 0}
_SUBSET_SEED = 1797


def open_data(
    spec: Mapping[str, Any],
    *,
    input_shape: tuple[int, int, int] | None = None,
    fixed_size: bool = True,
    seed: int = 0,
) -> Dataset:
    """Open the data of a recipe's data section and check it.

    Args:
        spec: `source` and the keys that this source has; see docs/models-and-data.md.
        input_shape: (channels, height, width) that the model takes. `digits` and `imagefolder` come at this
            size; other sources have their own, which must agree unless `resize: true` is set.
        fixed_size: whether height and width must agree (channels must always).
        seed: of loaders that are given none.

    Raises:
        DataError: unknown source or key (with a suggestion), missing or damaged files, no images, shapes that
            disagree with each other or the model, labels out of range, NaN or infinite values.
    """
    source, kind, request = _request(spec, input_shape)
    opened = kind.open(request)
    if isinstance(opened, Dataset):
        check_shape(source, opened.input_shape, input_shape, fixed_size=fixed_size, can_resize=False)
        return opened
    train = _subset(opened.train, "train_size", spec)
    test = _subset(opened.test, "test_size", spec)
    check_not_empty(source, train, test)
    if spec.get("resize", False) and input_shape is not None:
        train, test = (_resized(split, input_shape) for split in (train, test))
    shape = check_equal_shapes(source, train, test)
    check_shape(source, shape, input_shape, fixed_size=fixed_size, can_resize="resize" in kind.keys)
    for name, split in (("train", train), ("test", test)):
        check_values(source, name, split, opened.num_classes)
    return Dataset(
        source=source,
        num_classes=opened.num_classes,
        input_shape=shape,
        class_names=opened.class_names,
        normalisation=_normalisation(spec, opened, train, shape[0]),
        train=train,
        test=test,
        augmentation=opened.augmentation,
        augment=bool(spec.get("augment", True)),
        seed=seed,
    )


def _request(spec: Mapping[str, Any], input_shape: tuple[int, int, int] | None) -> tuple[str, _Kind, Request]:
    if not isinstance(spec, Mapping):
        raise DataKeyError(f"data must be a mapping with the key source, got {type(spec).__name__}")
    source = spec.get("source")
    if not isinstance(source, str) or not source:
        raise DataKeyError(f"data.source: must be one of {', '.join(_sources())}, got {source!r}")
    name, colon, place = source.partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise DataKeyError(f"data.source: there is no {source!r}{did_you_mean(name, _KINDS)}")
    if kind.place and not place:
        raise DataKeyError(f"data.source: {source!r} must read {name}:{kind.place}")
    if not kind.place and colon:
        raise DataKeyError(f"data.source: {name!r} takes nothing after it, got {source!r}")
    known = [*_COMMON_KEYS, *kind.keys]
    for key in spec:
        if key not in known:
            raise DataKeyError(f"data.{key}: {name!r} has no such key{did_you_mean(str(key), known)}")
    _check_options(spec)
    options = {key: value for key, value in spec.items() if key != "source"}
    return source, kind, Request(source=source, place=place, options=options, input_shape=input_shape)


def _sources() -> list[str]:
    return [f"{name}:{kind.place}" if kind.place else name for name, kind in _KINDS.items()]


def _check_options(spec: Mapping[str, Any]) -> None:
    for key, least in _LEAST.items():
        value = spec.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataKeyError(f"data.{key}: {value!r} must be a whole number of at least {least}")
    for key in ("augment", "resize"):
        if not isinstance(spec.get(key, True), bool):
            raise DataKeyError(f"data.{key}: {spec[key]!r} must be true or false")
    for key in ("mean", "std"):
        values = spec.get(key, (1.0,))
        if not isinstance(values, list | tuple) or not all(_is_number(value) for value in values):
            raise DataKeyError(f"data.{key}: {values!r} must be a list with one finite number a channel")
        if key == "std" and any(value <= 0 for value in values):
            raise DataKeyError(f"data.std: {values!r} must be positive")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _subset(split: Split, key: str, spec: Mapping[str, Any]) -> Split:
    size = spec.get(key, len(split))
    if size > len(split):
        raise DataError(f"data {key}={size} is more than the {len(split)} images there are; leave it out")
    if size == len(split):
        return split
    chosen = np.random.default_rng(_SUBSET_SEED).permutation(len(split))[:size]
    return split.subset(sorted(int(position) for position in chosen))


def _resized(split: Split, shape: tuple[int, int, int]) -> Split:
    if isinstance(split, StreamSplit) or split.images.shape[1:] == shape:
        return split
    return TensorSplit(images=resize(split.images, shape), labels=split.labels)


def _normalisation(spec: Mapping[str, Any], opened: Opened, train: Split, channels: int) -> Normalisation:
    for key in ("mean", "std"):
        if key in spec and len(spec[key]) != channels:
            raise DataError(f"data {key} has {len(spec[key])} values but the images have {channels} channels")
    if "mean" in spec and "std" in spec:
        measured = Normalisation(mean=(), std=())
    elif opened.normalisation is not None:
        measured = opened.normalisation
    else:
        assert isinstance(train, TensorSplit), "streams bring their normalisation"
        measured = measure(train.images)
    return Normalisation(
        mean=tuple(map(float, spec.get("mean", measured.mean))),
        std=tuple(map(float, spec.get("std", measured.std))),
    )
