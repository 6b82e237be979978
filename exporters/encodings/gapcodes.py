"""From a weight tensor to gap codes: which widths of codes and which order of axes are smallest.

The distance d from one value to the next is low + 2^w·high. ``low`` takes w bits for every value. ``high`` is
mostly 0, so only its units are stored, as gaps again: a list that says at which values to add 2^w.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

CODE_TYPES = {TensorProto.UINT4: 4, TensorProto.UINT8: 8, TensorProto.UINT16: 16}
"""Element types of code tensors and their bits."""
_WIDTHS = (4, 8, 16)
# Typical bytes of the nodes that a choice adds; only a guide for comparing choices of nearly equal size.
_EXTRA_NODES_BYTES = 150
_TRANSPOSE_NODE_BYTES = 40


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes of one tensor and its values in the order of the cursor.

    Attributes:
        low: For each value the low bits of its distance to the next; 0 for the last.
        low_bits: Their width: 4, 8 or 16.
        extra: Gap codes of the values to whose distance 2**low_bits is added; empty when there are none.
        extra_bits: Their width: 4, 8 or 16.
        order: The order of axes in which the tensor was flattened.
        positions: Where they are in the flattened tensor.
        values: The values.
    """

    low: NDArray[np.int64]
    low_bits: int
    extra: NDArray[np.int64]
    extra_bits: int
    order: tuple[int, ...]
    positions: NDArray[np.int64]
    values: NDArray[np.float32]


def best_codes(weights: NDArray[np.float32], stored: NDArray[np.bool_] | None = None, *, reorder: bool = True) -> Codes:
    """Return the smallest codes of a tensor.

    Args:
        weights: The tensor.
        stored: Which elements need a value, at least one; by default all but +0.0.
        reorder: Whether the tensor may be flattened in another order of its axes.
    """
    if stored is None:
        stored = weights.view(np.uint32) != 0
    best: tuple[float, tuple[int, ...], int, int] | None = None
    for order in _orders(weights.ndim) if reorder else (tuple(range(weights.ndim)),):
        distances = _distances(_occupied(stored, order))
        moved = _TRANSPOSE_NODE_BYTES * (order != tuple(sorted(order)))
        for low_bits in _WIDTHS:
            gaps = _extra_gaps(distances, low_bits)
            for extra_bits in _WIDTHS if gaps.size else _WIDTHS[:1]:
                entries = gaps.size + int((gaps // skip_code(extra_bits)).sum())
                size = (distances.size * low_bits + entries * extra_bits) / 8 + moved
                size += _EXTRA_NODES_BYTES * (gaps.size > 0)
                if best is None or size < best[0]:
                    best = (size, order, low_bits, extra_bits)
    assert best is not None
    _, order, low_bits, extra_bits = best
    positions = _occupied(stored, order)
    distances = _distances(positions)
    return Codes(
        low=distances & (2**low_bits - 1),
        low_bits=low_bits,
        extra=_with_skips(_extra_gaps(distances, low_bits), skip_code(extra_bits)),
        extra_bits=extra_bits,
        order=order,
        positions=positions,
        values=np.ascontiguousarray(weights.transpose(order)).reshape(-1)[positions],
    )


def skip_code(bits: int) -> int:
    """Return the largest code of a width, which in the extra list advances without adding."""
    return int(2**bits - 1)


def _orders(rank: int) -> Iterator[tuple[int, ...]]:
    """Whole filters die along axis 0, input channels along axis 1, taps of a kernel along the last axes."""
    yield tuple(range(rank))
    if rank >= 2:
        yield (1, 0, *range(2, rank))
    if rank >= 3:
        yield (*range(2, rank), 0, 1)


def _occupied(stored: NDArray[np.bool_], order: tuple[int, ...]) -> NDArray[np.int64]:
    """Positions with a value: what must be stored, and the first element, where the cursor starts."""
    flat = np.ascontiguousarray(stored.transpose(order)).reshape(-1)
    positions = np.flatnonzero(flat).astype(np.int64)
    return positions if flat[0] else np.concatenate([np.zeros(1, np.int64), positions])


def _distances(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distance from each value to the next; 0 after the last."""
    return np.diff(positions, append=positions[-1])


def _extra_gaps(distances: NDArray[np.int64], low_bits: int) -> NDArray[np.int64]:
    """Gaps between the values to add 2**low_bits to, a value that needs it k times listed k times."""
    high = distances >> low_bits
    targets = np.repeat(np.arange(distances.size, dtype=np.int64), high)
    return np.diff(targets, prepend=0)


def _with_skips(gaps: NDArray[np.int64], skip: int) -> NDArray[np.int64]:
    """Return codes below ``skip`` for gaps of any size, each preceded by as many skips as it needs."""
    skips = gaps // skip
    codes = np.full(gaps.size + int(skips.sum()), skip, dtype=np.int64)
    codes[np.cumsum(skips + 1) - 1] = gaps % skip
    return codes
