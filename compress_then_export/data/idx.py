"""``mnist:DIR``: the idx files of MNIST and of those that share its format (Fashion-MNIST, KMNIST)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.split import TensorSplit

_SUBFOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08
_LARGEST_BYTES = 2**31


def open_mnist(request: Request) -> Opened:
    """Open the four idx files in a folder, packed with gzip or not; images are 1x28x28 uint8.

    Raises:
        DataError: a file is missing, truncated, or no idx file; images and labels differ in number.
    """
    folder = Path(request.place)
    train, test = _split(folder, "train"), _split(folder, "test")
    num_classes = int(request.options.get("num_classes", 10))
    height = train.images.shape[2]
    return Opened(
        train=train,
        test=test,
        num_classes=num_classes,
        class_names=tuple("0123456789") if num_classes == 10 else None,
        augmentation=Augmentation(shift=max(1, height // 14), mirror=False),
    )


def _split(folder: Path, split: str) -> TensorSplit:
    images = read_idx(_find(folder, f"{_PREFIX[split]}-images", 3), dimensions=3)
    labels = read_idx(_find(folder, f"{_PREFIX[split]}-labels", 1), dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"data {folder}: {len(images)} {split} images but {len(labels)} labels")
    return TensorSplit(images=torch.from_numpy(images)[:, None], labels=torch.from_numpy(labels.astype(np.int64)))


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    wanted = f"{stem}-idx{dimensions}-ubyte"
    for subfolder in _SUBFOLDERS:
        for name in (wanted, f"{stem}.idx{dimensions}-ubyte"):
            for ending in ("", ".gz"):
                file = folder / subfolder / f"{name}{ending}"
                if file.is_file():
                    return file
    raise DataError(f"data mnist: {folder} has no file {wanted} or {wanted}.gz")


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read one idx file of unsigned bytes: two zero bytes, type 8, number of dimensions, sizes, values.

    Raises:
        DataError: wrong type or number of dimensions, a size that the file does not hold, or a damaged gzip.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with cast(BinaryIO, opener(path, "rb")) as stream:
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
                raise DataError(f"data file {path} is no idx file of bytes with {dimensions} dimensions")
            sizes = struct.unpack(f">{dimensions}I", header[4:])
            expected = math.prod(sizes)
            if expected > _LARGEST_BYTES:
                raise DataError(f"data file {path} claims {expected} bytes, more than 2 GiB; it is damaged")
            # One byte more than claimed shows a file that is too long, without unpacking all of it.
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data file {path} cannot be read: {error}") from error
    if len(content) != expected:
        more = "more" if len(content) > expected else f"only {len(content)}"
        raise DataError(f"data file {path} should hold {expected} bytes {sizes} but has {more}; fetch it again")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(sizes)
