"""``npz:FILE``: arrays x_train, y_train, x_test and y_test in one numpy archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.split import TensorSplit

_NAMES = ("x_train", "y_train", "x_test", "y_test")


def open_npz(request: Request) -> Opened:
    """Open an npz file; no pickled objects are loaded.

    Images are uint8 (0..255) or floating (taken as they are): [N, H, W], [N, C, H, W] or, with one or three
    channels, [N, H, W, C]. Labels are whole numbers [N] or [N, 1]; the number of classes is the largest
    training label plus one, or `num_classes`. 32x32 RGB images get CIFAR's augmentation, others none.

    Raises:
        DataError: no such file, a damaged archive, a missing array, or an array of a wrong type or shape.
    """
    path = Path(request.place)
    if not path.is_file():
        raise DataError(f"data npz: {path} does not exist; it must hold {', '.join(_NAMES)}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"data npz: {path} is truncated or no npz archive; fetch or write it again")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _NAMES if name not in archive.files]
            if missing:
                has = ", ".join(archive.files[:8])
                raise DataError(f"data npz: {path} has no array {', '.join(missing)}; it has {has}")
            arrays = {name: archive[name] for name in _NAMES}
    except DataError:
        raise
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"data npz: {path} is truncated, damaged or holds pickled objects: {error}") from error
    train = _split(arrays["x_train"], arrays["y_train"], "train")
    test = _split(arrays["x_test"], arrays["y_test"], "test")
    largest = int(train.labels.max()) if len(train) else 0
    rgb = train.images.shape[1:] == (3, 32, 32)
    return Opened(
        train=train,
        test=test,
        num_classes=int(request.options.get("num_classes", largest + 1)),
        augmentation=Augmentation(shift=4, mirror=True) if rgb else None,
    )


def _split(images: Any, labels: Any, split: str) -> TensorSplit:
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(f"data npz: x_{split} is {images.dtype}; give uint8 (0..255) or float32")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise DataError(f"data npz: x_{split} has shape {images.shape}; give [N, H, W] or [N, C, H, W]")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"data npz: y_{split} must be whole numbers [N], got {labels.dtype} {labels.shape}")
    if len(labels) != len(images):
        raise DataError(f"data npz: {len(images)} images in x_{split} but {len(labels)} labels in y_{split}")
    if images.dtype.kind == "f":
        images = images.astype(np.float32)
    return TensorSplit(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )
