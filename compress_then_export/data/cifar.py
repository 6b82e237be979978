"""``cifar10:DIR`` and ``cifar100:DIR``: the official files, binary or Python version, unpacked or not."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.pickles import RefusedPickle, load_plain
from compress_then_export.data.split import TensorSplit

_PIXELS = 3 * 32 * 32
_LARGEST_FILE = 256 * 2**20
_MOST_MEMBERS = 1000


@dataclass(frozen=True, kw_only=True)
class _Version:
    """One published form of the data set.

    Attributes:
        folder, archive: name of the unpacked folder and of the archive it came in.
        train, test: file names.
        label_bytes: labels before the pixels of a binary record, the last one being the label; 0 for pickles.
        label_key: key of the labels in a pickle.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 0
    label_key: bytes = b""


# Binary first: it needs no unpickling.
_CIFAR10 = (
    _Version(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        test=("test_batch.bin",),
        label_bytes=1,
    ),
    _Version(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{n}" for n in range(1, 6)),
        test=("test_batch",),
        label_key=b"labels",
    ),
)
_CIFAR100 = (
    _Version(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
    ),
    _Version(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        test=("test",),
        label_key=b"fine_labels",
    ),
)


def open_cifar10(request: Request) -> Opened:
    """Open CIFAR-10 out of the folder, its parent, or the downloaded archive."""
    return _open(request, _CIFAR10, 10)


def open_cifar100(request: Request) -> Opened:
    """Open CIFAR-100 with its fine labels, likewise."""
    return _open(request, _CIFAR100, 100)


def _open(request: Request, versions: tuple[_Version, ...], num_classes: int) -> Opened:
    version, read = _find(request, versions)
    splits = []
    for names in (version.train, version.test):
        parts = [_parse(read(name), f"{request.place}: {name}", version) for name in names]
        splits.append(
            TensorSplit(
                images=torch.cat([images for images, _ in parts]),
                labels=torch.cat([labels for _, labels in parts]),
            )
        )
    return Opened(
        train=splits[0],
        test=splits[1],
        num_classes=num_classes,
        augmentation=Augmentation(shift=4, mirror=True),
    )


def _find(request: Request, versions: tuple[_Version, ...]) -> tuple[_Version, Callable[[str], bytes]]:
    place = Path(request.place)
    for version in versions:
        for folder in (place / version.folder, place):
            if (folder / version.test[0]).is_file():
                return version, partial(_read_file, folder)
        for archive in (place / version.archive, place):
            if archive.is_file() and archive.name == version.archive:
                return version, partial(_member, _read_archive(archive, version), archive)
    expected = " or ".join(f"{version.folder}/ or {version.archive}" for version in versions)
    raise DataError(f"data {request.source}: {place} holds neither {expected}")


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    if path.stat().st_size > _LARGEST_FILE:
        raise DataError(f"data file {path} has {path.stat().st_size} bytes; no CIFAR file is that large")
    return path.read_bytes()


def _member(members: dict[str, bytes], archive: Path, name: str) -> bytes:
    if name not in members:
        raise DataError(f"data archive {archive} has no file {name}")
    return members[name]


def _read_archive(archive: Path, version: _Version) -> dict[str, bytes]:
    """Read the wanted members into memory; nothing is written, so a member's path cannot lead anywhere."""
    wanted = {*version.train, *version.test}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for count, member in enumerate(tar):
                if count >= _MOST_MEMBERS:
                    raise DataError(f"data archive {archive} has more than {_MOST_MEMBERS} members")
                path = PurePosixPath(member.name)
                if path.parts[-2:] != (version.folder, path.name) or path.name not in wanted:
                    continue
                if not member.isreg() or member.size > _LARGEST_FILE:
                    raise DataError(f"data archive {archive}: {member.name} is no file of a CIFAR file's size")
                stream = tar.extractfile(member)
                found[path.name] = stream.read() if stream is not None else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"data archive {archive} is truncated or damaged: {error}") from error
    return found


def _parse(content: bytes, where: str, version: _Version) -> tuple[torch.Tensor, torch.Tensor]:
    if version.label_bytes:
        record = version.label_bytes + _PIXELS
        if not content or len(content) % record:
            raise DataError(f"data {where} has {len(content)} bytes, no multiple of {record}; fetch it again")
        records = np.frombuffer(bytearray(content), dtype=np.uint8).reshape(-1, record)
        pixels, labels = records[:, version.label_bytes :], records[:, version.label_bytes - 1]
    else:
        pixels, labels = _unpickle(content, where, version.label_key)
    images = torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32))
    return images, torch.from_numpy(labels.astype(np.int64))


def _unpickle(content: bytes, where: str, label_key: bytes) -> tuple[Any, Any]:
    try:
        batch = load_plain(content)
    except RefusedPickle as error:
        raise DataError(f"data {where} is refused as a CIFAR pickle: {error}") from error
    if not isinstance(batch, dict):
        raise DataError(f"data {where} holds a {type(batch).__name__}, not a CIFAR batch")
    pixels, labels = batch.get(b"data"), batch.get(label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        raise DataError(f"data {where} has no b'data' of uint8 values with {_PIXELS} columns")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"data {where} has no list of labels under {label_key!r}")
    if len(labels) != len(pixels):
        raise DataError(f"data {where}: {len(pixels)} images but {len(labels)} labels")
    return pixels, np.asarray(labels, dtype=np.int64)
