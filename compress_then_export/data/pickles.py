"""Reading a pickle of plain containers and byte arrays, refusing everything else."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_BYTE_TYPES = (b"u1", "u1", b"|u1", "|u1")


class RefusedPickle(ValueError):
    """The pickle asks for something else than containers, text, numbers and arrays of bytes."""


def _empty_array(_type: Any, _shape: Any, _code: Any) -> Any:
    # The true shape follows in the state, together with the bytes; numpy checks that they agree. The shape
    # given here is ignored: it could claim any amount of memory.
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _byte_type(name: Any, *_: Any) -> Any:
    if name not in _BYTE_TYPES:
        raise RefusedPickle(f"an array of type {name!r} instead of bytes")
    return np.dtype(np.uint8, copy=True)


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in protocol 2.
    if encoding != "latin1" or not isinstance(text, str):
        raise RefusedPickle(f"text encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _byte_type,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise RefusedPickle(f"{module}.{name}") from None


def load_plain(content: bytes) -> Any:
    """Return the object in a pickle of dicts, lists, tuples, bytes, text, numbers and uint8 arrays.

    Python 2's text comes back as bytes. Nothing outside that list is imported or called.

    Raises:
        RefusedPickle: the pickle asks for anything else, or is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except RefusedPickle:
        raise
    except Exception as error:  # a damaged pickle fails in any of a dozen ways
        raise RefusedPickle(f"damaged ({type(error).__name__}: {error})") from error
