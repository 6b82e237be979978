"""Reading .npz files nobody vouches for: no pickles, no sizes taken on trust, any length in little memory."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from runtime_check.errors import CheckError, one_line

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an array claims to be, checked against the size of its archive member."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """Bytes of the array once read."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open .npz: headers first, then arrays whole or a few rows at a time.

    Only plain numeric arrays in C order are read; object arrays (pickles) never are.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self._zip = archive
        self._name = name
        names = [info.filename for info in archive.infolist()]
        if len(set(names)) != len(names):
            raise CheckError(f"{name} holds two arrays of the same name; write it again with numpy.savez")

    def header(self, array: str) -> Header:
        """Read and check an array's header; CheckError when it is missing, odd or lies about its size."""
        with self._open(array) as (_, header):
            return header

    def read(self, array: str) -> NDArray[Any]:
        """Read a whole array, in native byte order. Check `header(...).size_bytes` before."""
        with self._open(array) as (stream, header):
            return self._rows(stream, header, header.shape)

    def batches(self, array: str, rows: int) -> Iterator[NDArray[Any]]:
        """Read an array of at least one dimension `rows` rows at a time."""
        with self._open(array) as (stream, header):
            for start in range(0, header.shape[0], rows):
                count = min(rows, header.shape[0] - start)
                yield self._rows(stream, header, (count, *header.shape[1:]))

    def _rows(self, stream: IO[bytes], header: Header, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * header.dtype.itemsize
        content = bytearray()
        while len(content) < size:
            part = stream.read(min(size - len(content), 1 << 22))
            if not part:
                raise CheckError(f"{self._name} is truncated inside {header.name!r}; write it again")
            content += part
        array = np.frombuffer(content, dtype=header.dtype).reshape(shape)
        return array.astype(header.dtype.newbyteorder("="), copy=False)

    @contextmanager
    def _open(self, array: str) -> Iterator[tuple[IO[bytes], Header]]:
        member = f"{array}.npy"
        if member not in self._zip.namelist():
            held = ", ".join(n.removesuffix(".npy") for n in self._zip.namelist()) or "nothing"
            raise CheckError(f"{self._name} has no array {array!r} (it holds {one_line(held)})")
        try:
            with self._zip.open(member) as stream:
                yield stream, self._parse(stream, array, self._zip.getinfo(member).file_size)
        except _DAMAGE as error:
            raise CheckError(f"{self._name} is damaged at {array!r}: {one_line(error)}") from error

    def _parse(self, stream: IO[bytes], array: str, member_bytes: int) -> Header:
        try:
            version = npy.read_magic(stream)
            shape, fortran, dtype = _READERS[version](stream)
        except (ValueError, KeyError) as error:
            raise CheckError(f"{self._name}: {array!r} is not a NumPy array file") from error
        if dtype.hasobject or dtype.kind not in "fiub":
            raise CheckError(f"{self._name}: {array!r} has type {dtype}; only plain numbers are read, never pickles")
        if any(size < 0 for size in shape):
            raise CheckError(f"{self._name}: {array!r} has a negative size in its shape {shape}")
        if fortran and len(shape) > 1:
            raise CheckError(f"{self._name}: {array!r} is in Fortran order; save numpy.ascontiguousarray of it")
        header = Header(name=array, shape=tuple(shape), dtype=dtype)
        if header.size_bytes + stream.tell() != member_bytes:
            raise CheckError(
                f"{self._name}: {array!r} claims {header.size_bytes} bytes but its place holds another number"
            )
        return header


@contextmanager
def open_archive(source: IO[bytes], name: str) -> Iterator[Archive]:
    """Open an .npz from a binary file object; `name` stands for it in messages.

    Raises:
        CheckError: when the content is not a zip archive, and from the archive's methods.
    """
    try:
        archive = zipfile.ZipFile(source)
    except _DAMAGE as error:
        raise CheckError(f"{name} is not an .npz file: {one_line(error)}") from error
    with archive:
        yield Archive(archive, name)
