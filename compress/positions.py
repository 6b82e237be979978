"""Positions as the gaps between them, in the integers that take fewer bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES: tuple[type[np.unsignedinteger[Any]], ...] = (np.uint8, np.uint16)


def encode(positions: NDArray[np.int64]) -> NDArray[np.unsignedinteger[Any]]:
    """Codes of ``positions``, which ascend strictly from 0 or more.

    A gap is the number of positions left out before one. The largest integer of the type, L, is no gap but L
    positions left out, so a gap g takes ⌊g / L⌋ of these and then g mod L.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    return min((_codes(gaps, dtype) for dtype in _TYPES), key=lambda codes: codes.nbytes)


def decode(codes: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """The positions, which ascend strictly whatever the codes are.

    Raises:
        ValueError: the codes end inside a gap.
    """
    lands = codes < np.iinfo(codes.dtype).max
    if lands.size and not lands[-1]:
        raise ValueError("positions: the codes end inside a gap")
    ends: NDArray[np.int64] = np.cumsum(codes.astype(np.int64) + lands) - 1
    return ends[lands]


def _codes(gaps: NDArray[np.int64], dtype: type[np.unsignedinteger[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    largest = int(np.iinfo(dtype).max)
    skips, rest = np.divmod(gaps, largest)
    codes = np.full(int(skips.sum()) + gaps.size, largest, dtype)
    codes[np.cumsum(skips + 1) - 1] = rest
    return codes
