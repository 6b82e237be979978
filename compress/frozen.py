"""Frozen weights out of one 32-bit seed (thesis 002, sections 3.3.3.1 and 3.4.2).

A weight is an entry of a small table, chosen by bits of a Threefry block (:mod:`compress.threefry`), times the scale
of its tensor: no transcendental function is evaluated and every float32 operation rounds once, so numpy, torch
and the nodes of an ONNX file give equal bits.

Normal and uniform values take 10 random bits, so that a 32-bit word serves 3 weights, and ±σ takes one. A tensor is cut
into rows of 6144 weights, for which L = 1024 (or 96) blocks are needed; row r has the counters
(0 .. L − 1, stream·2¹⁸ + r) under the key (seed, 0). In a row come the weights of the first words of all blocks, then
those of the second words; of each word the lowest bits of all L blocks, then the next higher bits:

    weight p:  row p div 6144,  block p mod L,  word (p mod 6144) div 3072,  shift bits·((p mod 3072) div L)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.checks import require
from compress.threefry import threefry

DISTRIBUTIONS = {"xavier_normal": 10, "kaiming_uniform": 10, "signed_constant": 1}
"""The distributions and the random bits that each weight takes."""

STREAMS = 2**13
"""Tensors that one seed serves."""

_ROW = 6144
_ROWS_A_STREAM = 2**18
# Rows that are generated at a time: a few megabytes, which stay in a processor's cache.
_ROWS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class FrozenValues:
    """The values of one tensor, as little as has to be stored of them.

    Attributes:
        seed: 0 to 2³² − 1, one for the network.
        stream: which of the seed's streams, 0 to 8191; every tensor takes its own.
        distribution: ``"xavier_normal"``, ``"kaiming_uniform"`` or ``"signed_constant"``.
        scale: a float32 number: the standard deviation of the normal distribution, the bound of the uniform one,
            or σ.
        shape: the shape of the tensor.

    The distributions: ``kaiming_uniform`` takes the midpoints of 1024 equal parts of (−scale, scale);
    ``signed_constant`` takes ±scale; ``xavier_normal`` takes 1024 equally likely quantiles of the normal
    distribution (:func:`unit_values`). Either is within 7e-4 of the continuous distribution in every probability.
    """

    seed: int
    stream: int
    distribution: str
    scale: float
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        require(_is_whole(self.seed, 2**32), "seed", self.seed, "a whole number of 32 bits, 0 to 4294967295")
        require(_is_whole(self.stream, STREAMS), "stream", self.stream, f"a whole number, 0 to {STREAMS - 1}")
        _check_distribution(self.distribution)
        good = isinstance(self.scale, float) and 2.0**-64 <= self.scale <= 2.0**64
        require(good and float(np.float32(self.scale)) == self.scale, "scale", self.scale, "a positive float32 number")
        sizes = isinstance(self.shape, tuple) and all(_is_whole(size, 2**31) for size in self.shape)
        require(sizes and 0 < math.prod(self.shape) <= _ROW * _ROWS_A_STREAM, "shape", self.shape, _SHAPE)

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    def tensor(self, device: torch.device | str | None = None) -> Tensor:
        """The whole tensor, float32, generated on ``device``."""
        table = torch.from_numpy(self._table()).to(device)
        flat = torch.empty(self.size, dtype=torch.float32, device=device)
        for start in range(0, self.size, _ROW * _ROWS_AT_ONCE):
            stop = min(self.size, start + _ROW * _ROWS_AT_ONCE)
            lanes, counters = self._counters(start, stop)
            words = threefry((self.seed, 0), torch.from_numpy(lanes).to(device), torch.from_numpy(counters).to(device))
            shifts = torch.from_numpy(self._shifts()).to(device)
            chosen = (torch.cat(words, dim=1) >> shifts) & (table.numel() - 1)
            flat[start:stop] = table[chosen.flatten()[: stop - start]]
        return flat.view(self.shape)

    def array(self) -> NDArray[np.float32]:
        """The whole tensor, made by numpy."""
        return self.values(0, self.size).reshape(self.shape)

    def values(self, start: int, stop: int) -> NDArray[np.float32]:
        """The weights ``start`` to ``stop`` of the flattened tensor, generated without the others."""
        good = _is_whole(start, self.size + 1) and _is_whole(stop, self.size + 1) and start <= stop
        require(good, "start, stop", (start, stop), f"a range within the {self.size} weights")
        table = self._table()
        flat = np.empty(stop - start, np.float32)
        done = start
        while done < stop:
            skipped = done % _ROW
            upto = min(stop, done - skipped + _ROW * _ROWS_AT_ONCE)
            words = threefry((self.seed, 0), *self._counters(done - skipped, upto))
            chosen = (np.concatenate(words, axis=1) >> self._shifts()) & (table.size - 1)
            flat[done - start : upto - start] = table[chosen.reshape(-1)[skipped : skipped + upto - done]]
            done = upto
        return flat

    def to_json(self) -> dict[str, Any]:
        """The record as plain numbers, strings and lists."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FrozenValues:
        """The values that ``to_json`` described."""
        names = set(cls.__dataclass_fields__)
        if set(record) != names:
            raise ValueError(f"record: has the entries {sorted(record)}, needed are exactly {sorted(names)}")
        shape = record["shape"]
        return cls(**{**record, "shape": tuple(shape) if isinstance(shape, list | tuple) else shape})

    def _counters(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Both words of the counters of the rows that hold the weights ``start`` (a row's first) to ``stop``."""
        rows = np.arange(start // _ROW, -(-stop // _ROW), dtype=np.int64)
        lanes = np.arange(_ROW // (2 * self._shifts().size), dtype=np.int64)
        return lanes, (self.stream * _ROWS_A_STREAM + rows).reshape(-1, 1, 1, 1)

    def _shifts(self) -> NDArray[np.int64]:
        bits = DISTRIBUTIONS[self.distribution]
        return np.arange(0, 33 - bits, bits, dtype=np.int64)[:, None]

    def _table(self) -> NDArray[np.float32]:
        return unit_values(self.distribution) * np.float32(self.scale)


_SHAPE = "a tuple of whole numbers whose product is between 1 and 2**30"
_NORMAL = (0.650749, (1.087783, 2.107651), (0.089832, 1.09708), (0.004893, 1.003597))


def unit_values(distribution: str) -> NDArray[np.float32]:
    """The equally likely values of a distribution at scale 1, ascending: [1024] or [2], float32.

    t runs over the midpoints of equal parts of (−1, 1). The normal distribution is
    z(t) = t·(c₀ + c₁/(d₁ − t²) + c₂/(d₂ − t²) + c₃/(d₃ − t²)), evaluated from left to right in float32; its
    coefficients were fitted to the inverse of the normal distribution function, with variance 1 and kurtosis 3.
    """
    if distribution == "signed_constant":
        return np.array([-1, 1], np.float32)
    t = (np.arange(-1023, 1024, 2) / 1024).astype(np.float32)
    if distribution == "kaiming_uniform":
        return t
    centre, *poles = _NORMAL
    total = np.full_like(t, centre)
    for height, place in poles:
        total = total + np.float32(height) / (np.float32(place) - t * t)
    return total * t


def frozen_values(
    seed: int, weights: Mapping[str, Sequence[int] | Tensor], distribution: str = "xavier_normal"
) -> dict[str, FrozenValues]:
    """The initial values of a network's weights.

    Args:
        seed: 0 to 2³² − 1.
        weights: the weights by name, or their shapes [out, in, ...]; a weight's place in this order is its stream.
        distribution: ``"xavier_normal"`` with variance 2/(fan_in + fan_out), ``"kaiming_uniform"`` on
            ±√(6/fan_in), or ``"signed_constant"``, ±σ with the σ of ``"xavier_normal"`` (thesis, section 3.4.2).

    Raises:
        ValueError: a setting is out of range, or a weight has less than two axes.
    """
    _check_distribution(distribution)
    require(len(weights) <= STREAMS, "weights", len(weights), f"a number of tensors of at most {STREAMS}")
    found = {}
    for stream, (name, weight) in enumerate(weights.items()):
        shape = tuple(weight.shape if isinstance(weight, Tensor) else weight)
        if len(shape) < 2:
            raise ValueError(f"weights: {name!r} has the shape {list(shape)}; fans are defined from two axes on")
        found[name] = FrozenValues(
            seed=seed, stream=stream, distribution=distribution, scale=_scale(shape, distribution), shape=shape
        )
    return found


def _scale(shape: tuple[int, ...], distribution: str) -> float:
    taps = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * taps, shape[0] * taps
    square = 6 / max(1, fan_in) if distribution == "kaiming_uniform" else 2 / max(1, fan_in + fan_out)
    return float(np.float32(math.sqrt(square)))


def _is_whole(value: object, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _check_distribution(distribution: object) -> None:
    known = ", ".join(DISTRIBUTIONS)
    require(distribution in DISTRIBUTIONS, "distribution", distribution, f"one of {known}")
