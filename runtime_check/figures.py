"""Latency and speed-up as figures: what is told of a series of timings, and when it is not to be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime_check.intervals import median_interval
from runtime_check.timing import Rounds

# What makes a measurement unstable: spread of one model, width of the interval against its median.
WIDE_SPREAD = 1.5
WIDE_INTERVAL = 0.10
# Share of interrupted rounds from which on the reader is told.
_MANY_INTERRUPTED = 0.10


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Per-call latency of one model, in milliseconds, in the order measured.

    `calls` calls were averaged for one sample; `threads` is the number of threads of the session.
    """

    samples_ms: NDArray[np.float64]
    threads: int
    calls: int = 1

    @property
    def spread(self) -> float:
        """90th percentile over 10th."""
        low, high = np.quantile(self.samples_ms, [0.1, 0.9])
        return float(high / low)

    def to_json(self) -> dict[str, Any]:
        """The `latency_ms` object of report.json."""
        p10, median, p90 = (float(v) for v in np.quantile(self.samples_ms, [0.1, 0.5, 0.9]))
        return {
            "median": median,
            "p10": p10,
            "p90": p90,
            "runs": int(self.samples_ms.size) * self.calls,
            "threads": self.threads,
            "calls_per_sample": self.calls,
        }


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """Median over the rounds of baseline over other latency, with its 95 % interval (above 1: faster).

    `rounds` were used; `interrupted_share` of all rounds measured were interrupted by other work.
    """

    median: float
    ci95: tuple[float, float]
    stable: bool
    threads: int
    rounds: int
    interrupted_share: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The `speedup` object of report.json."""
        return {
            "median": self.median,
            "ci95": list(self.ci95),
            "stable": self.stable,
            "threads": self.threads,
            "rounds": self.rounds,
            "interrupted_share": self.interrupted_share,
        }


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of all models of one measurement; `speedups[i]` is that of model i+1 against model 0."""

    latencies: tuple[Latency, ...]
    speedups: tuple[Speedup, ...]
    warnings: tuple[str, ...]


def summarise(rounds: Rounds, names: Sequence[str], threads: int, seed: int = 0) -> Figures:
    """Turn rounds into figures, by the rounds that were not interrupted; `names` are for the warnings."""
    used = rounds.without_interrupted()
    columns = zip(used.latency_ms.T, used.calls, strict=True)
    latencies = tuple(Latency(samples_ms=column, threads=threads, calls=calls) for column, calls in columns)
    speedups = tuple(_speedup(latencies[0], other, rounds, seed) for other in latencies[1:])
    return Figures(
        latencies=latencies,
        speedups=speedups,
        warnings=(*_interruptions(rounds), *_spreads(latencies, names), *_wide_intervals(speedups)),
    )


def _speedup(a: Latency, b: Latency, rounds: Rounds, seed: int) -> Speedup:
    ratios = a.samples_ms / b.samples_ms
    median = float(np.median(ratios))
    low, high = median_interval(ratios, seed=seed)
    steady = max(a.spread, b.spread) <= WIDE_SPREAD and high - low <= WIDE_INTERVAL * median
    return Speedup(
        median=median,
        ci95=(low, high),
        stable=steady and rounds.calm,
        threads=a.threads,
        rounds=len(ratios),
        interrupted_share=rounds.interrupted_share,
    )


def _interruptions(rounds: Rounds) -> Iterator[str]:
    share = f"{rounds.interrupted_share:.0%} of the rounds"
    if not rounds.calm:
        yield (
            f"other work interrupted {share}, which slows the slower model more: the speed-up cannot be trusted; "
            "measure again on a quieter machine"
        )
    elif rounds.interrupted_share > _MANY_INTERRUPTED:
        yield f"other work interrupted {share}; these were set aside"


def _spreads(latencies: Sequence[Latency], names: Sequence[str]) -> Iterator[str]:
    for name, latency in zip(names, latencies, strict=True):
        if latency.spread > WIDE_SPREAD:
            threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
            yield (
                f"latency of {name} is unstable: its 90th percentile is {latency.spread:.1f} times its 10th "
                f"({threads}); measure longer on a quieter machine"
            )


def _wide_intervals(speedups: Sequence[Speedup]) -> Iterator[str]:
    for speedup in speedups:
        low, high = speedup.ci95
        if high - low > WIDE_INTERVAL * speedup.median:
            yield (
                f"the speed-up's 95 % interval {low:.2f} to {high:.2f} is wider than {WIDE_INTERVAL:.0%} "
                f"of its median {speedup.median:.2f}; measure longer"
            )
