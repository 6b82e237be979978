"""Intervals: how far a measured figure may be from the true one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959963984540054
# A resample is a row of indices; rows are made in slices of about this many numbers to bound memory.
_SLICE = 2_000_000


def wilson(correct: int, samples: int, z: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) where there are no samples.

    Unlike the textbook interval it stays inside [0, 1] and is right at 0 and at 100 %.
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"correct must lie between 0 and samples, not {correct} of {samples}")
    if samples == 0:
        return 0.0, 1.0
    share = correct / samples
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    low = 0.0 if correct == 0 else (middle - half) / scale
    high = 1.0 if correct == samples else (middle + half) / scale
    return low, high


def paired_difference(only_first: int, only_second: int, samples: int, z: float = _Z95) -> tuple[float, float]:
    """Interval of (first proportion − second proportion) on the same samples.

    Agresti and Min (2005): the Wald interval of matched pairs after adding 1/2 to each of the four cells.
    Only samples that one of the two gets right carry information.

    Args:
        only_first: samples that only the first got right.
        only_second: samples that only the second got right.
        samples: all samples.
        z: normal quantile; the default gives 95 %.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > samples:
        raise ValueError(f"discordant counts {only_first} and {only_second} do not fit {samples} samples")
    total = samples + 2.0
    first, second = only_first + 0.5, only_second + 0.5
    difference = (first - second) / total
    half = z * math.sqrt(max(first + second - (first - second) ** 2 / total, 0.0)) / total
    return max(difference - half, -1.0), min(difference + half, 1.0)


def median_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (percentile) of the median of a series taken one after the other.

    Neighbouring timings resemble each other (frequency, other load), and a bootstrap of single values would
    then be too sure of itself. So blocks of round(n^(1/3)) neighbours are drawn, around the ends (the
    circular block bootstrap of Politis and Romano 1992). Assumption: the series is stationary, and the
    likeness of two values dies out within a block. Very long series get fewer resamples, never below 400.

    Args:
        values: the series, [n], n of at least 1.
        confidence: share of the bootstrap distribution inside the interval.
        resamples: bootstrap resamples.
        seed: the same seed gives the same interval.
    """
    series: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    count = series.size
    if series.ndim != 1 or count == 0:
        raise ValueError(f"values must be a series of at least one number, not shape {series.shape}")
    block = max(1, round(count ** (1 / 3)))
    blocks = -(-count // block)
    resamples = max(400, min(resamples, 10_000_000 // count))
    rng = np.random.default_rng(seed)
    offsets = np.arange(block)
    medians = np.empty(resamples)
    rows = max(1, _SLICE // count)
    for start in range(0, resamples, rows):
        part = medians[start : start + rows]
        starts = rng.integers(0, count, (len(part), blocks, 1))
        index = ((starts + offsets) % count).reshape(len(part), -1)[:, :count]
        part[:] = np.median(series[index], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)
