"""Raw timings of several sessions, taken in turns so that all of them see the same machine."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import get_clock_info, perf_counter, thread_time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime_check.feeds import Feed
from runtime_check.session import run

MIN_ROUNDS = 10
# Shorter timings would be mostly clock; quick models are called several times for one sample.
_MIN_SAMPLE_SECONDS = 5e-4
_MAX_CALLS = 1000
# A timing in which the thread did not have the processor for this share of the time was interrupted.
_INTERRUPTED = 0.05


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A session with the inputs it is timed on; `name` stands for it in messages."""

    session: ort.InferenceSession
    feed: Feed
    name: str


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Timings in milliseconds a call, [rounds, runners]: row i was measured within one round.

    Each entry is the mean of `calls[j]` calls made back to back (1 unless the model is very quick).
    `interrupted` [rounds] marks rounds in which other work took the processor away during a timing.
    """

    latency_ms: NDArray[np.float64]
    calls: tuple[int, ...]
    interrupted: NDArray[np.bool_]

    @property
    def interrupted_share(self) -> float:
        """Share of the rounds that were interrupted."""
        return float(self.interrupted.mean())

    @property
    def calm(self) -> bool:
        """Whether enough rounds were not interrupted to go by those alone."""
        return int((~self.interrupted).sum()) >= MIN_ROUNDS

    def without_interrupted(self) -> Rounds:
        """The rounds that were not interrupted, or all where those are too few.

        An interruption lasts some milliseconds, whatever it interrupts. A model that needs less time often
        slips through between two, a slower one hardly ever: on a busy machine the plain ratio of wall times
        flatters the quicker model (seen here: 8.3 instead of 3.7).
        """
        if not self.calm:
            return self
        keep = ~self.interrupted
        return replace(self, latency_ms=self.latency_ms[keep], interrupted=self.interrupted[keep])


def take_turns(runners: Sequence[Runner], *, seconds: float, seed: int = 0, watch: bool = False) -> Rounds:
    """Time all runners round by round for about `seconds` seconds in all.

    The order within a round is random, and the next round repeats it backwards: for two runners that is ABBA
    or BAAB, so a steady drift of the machine hits both alike. At least 10 rounds are taken however slow the
    models are. Garbage collection is off meanwhile.

    Args:
        runners: what to time, at least one.
        seconds: time for all runners together; warm-up (about a tenth of it) comes on top.
        seed: of the order.
        watch: mark interrupted rounds, by comparing the thread's processor time with the wall time; only for
            sessions of one thread, which compute in the calling thread. Where too few rounds are left, up to
            `seconds` more are spent on finding some.

    Raises:
        CheckError: naming the runner that onnxruntime cannot run.
    """
    watch = watch and get_clock_info("thread_time").resolution <= 1e-6
    calls = tuple(_calls_per_sample(_warm_up(runner, 0.1 * seconds / len(runners))) for runner in runners)
    rng = np.random.default_rng(seed)
    order = list(range(len(runners)))
    rounds: list[list[float]] = []
    interrupted: list[bool] = []
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        deadline = perf_counter() + seconds
        while len(rounds) < MIN_ROUNDS or len(rounds) % 2 or _go_on(interrupted, deadline, seconds):
            if len(rounds) % 2:
                order.reverse()
            else:
                rng.shuffle(order)
            row, busy = [0.0] * len(runners), False
            for index in order:
                wall, processor = _time(runners[index], calls[index])
                row[index] = wall / calls[index]
                busy = busy or (watch and wall - processor > _INTERRUPTED * wall)
            rounds.append(row)
            interrupted.append(busy)
    finally:
        if enabled:
            gc.enable()
    return Rounds(
        latency_ms=1e3 * np.asarray(rounds, dtype=np.float64),
        calls=calls,
        interrupted=np.asarray(interrupted, dtype=np.bool_),
    )


def _go_on(interrupted: Sequence[bool], deadline: float, seconds: float) -> bool:
    now = perf_counter()
    return now < deadline or (now < deadline + seconds and interrupted.count(False) < MIN_ROUNDS)


def _time(runner: Runner, calls: int) -> tuple[float, float]:
    """Wall time and processor time of this thread, in seconds, for `calls` calls."""
    call: Any = runner.session.run
    feed = runner.feed
    processor = thread_time()
    start = perf_counter()
    for _ in range(calls):
        call(None, feed)
    return perf_counter() - start, thread_time() - processor


def _warm_up(runner: Runner, seconds: float) -> float:
    """Run until caches, arenas and clocks have settled; return the quickest call in seconds."""
    run(runner.session, runner.feed, runner.name)
    deadline = perf_counter() + seconds
    times = [_time(runner, 1)[0], _time(runner, 1)[0]]
    while perf_counter() < deadline:
        times.append(_time(runner, 1)[0])
    return min(times)


def _calls_per_sample(quickest: float) -> int:
    return min(_MAX_CALLS, max(1, round(_MIN_SAMPLE_SECONDS / max(quickest, 1e-9) + 0.5)))
