"""Latency: the same input through A and B in turns, medians, and the interval of their ratio."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnxruntime as ort

from runtime_check.environment import available_cores, business, describe
from runtime_check.errors import CheckError, one_line
from runtime_check.feeds import Feed, random_feed
from runtime_check.figures import Figures, Latency, Speedup, summarise
from runtime_check.kernels import report
from runtime_check.session import load, measuring_time, thread_count
from runtime_check.timing import Runner, take_turns

Model: TypeAlias = ort.InferenceSession | str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models measured in turns: `baseline` is A, `compressed` is B, `speedup` is A's latency over B's."""

    baseline: Latency
    compressed: Latency
    speedup: Speedup
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One entry of `latency_by_threads` in report.json."""
        return {
            "threads": self.speedup.threads,
            "baseline": self.baseline.to_json(),
            "compressed": self.compressed.to_json(),
            "speedup": self.speedup.to_json(),
        }


def compare(
    a: Model,
    b: Model,
    *,
    threads: int = 1,
    seconds: float = 2.0,
    feed: Feed | None = None,
    shapes: Mapping[str, int] | None = None,
    kernels: bool = True,
    seed: int = 0,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Measure how many times faster B is than A, on the same inputs, in strict alternation.

    The speed-up is the median of the ratios of pairs measured next to each other, with a block bootstrap
    95 % interval (`intervals.median_interval`). Every timing includes onnxruntime's Python call. With one
    thread, rounds that other work interrupted are set aside (`timing.Rounds.without_interrupted`).

    Args:
        a: the baseline: a path, or an open session.
        b: the other model, likewise. Sessions must have been opened with `threads` threads and, for more than
            one thread, with `spinning=False`; paths are opened that way.
        threads: threads of one operator, the same for both.
        seconds: measuring time for both together, without warm-up.
        feed: inputs by name for both; None makes random ones, batch 1, from each model's metadata.
        shapes: sizes of free dimensions for random inputs.
        kernels: as in `load`.
        seed: of order, random inputs and bootstrap.
        names: what messages call two sessions; paths are called by their file names.

    Raises:
        CheckError: a file that cannot be opened or run, or a wrong argument.
    """
    threads, seconds = thread_count(threads), measuring_time(seconds)
    runners = [
        _runner(model, name, threads, feed, shapes, kernels, seed) for model, name in zip((a, b), names, strict=True)
    ]
    figures = _measure(runners, threads, seconds, seed)
    return Comparison(
        baseline=figures.latencies[0],
        compressed=figures.latencies[1],
        speedup=figures.speedups[0],
        warnings=(*crowding(threads), *figures.warnings),
    )


def bench(
    paths: Sequence[str | os.PathLike[str]],
    *,
    threads: int = 1,
    seconds: float = 5.0,
    shapes: Mapping[str, int] | None = None,
    kernels: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure any number of ONNX files round-robin on random inputs; the first is the baseline of the others.

    A single file of which sparse kernels run a layer is measured twice, first without them, as the baseline.

    Arguments and errors are those of `compare`; `seconds` is for all files together. Returns a document of
    plain JSON types: {"schema", "threads", "seconds", "models": [{"file", "size_bytes", "inputs",
    "latency_ms": {median, p10, p90, runs, threads, calls_per_sample}, "speedup": {...} | null,
    "kernels": {claimed, layers}}],
    "environment", "warnings"}; `speedup` is null for the baseline.
    """
    if isinstance(paths, str | os.PathLike) or not paths:
        raise CheckError("paths must be a sequence of at least one .onnx file")
    threads, seconds = thread_count(threads), measuring_time(seconds)
    environment = describe(kernels=kernels)
    runners = [_runner(path, "", threads, None, shapes, kernels, seed) for path in paths]
    names = [one_line(path) for path in paths]
    if len(runners) == 1 and any(layer.claimed for layer in report.layers(runners[0].session)):
        # One file alone is compared with itself: what the kernels bring.
        runners.insert(0, _runner(paths[0], "", threads, None, shapes, False, seed))
        paths, names = [*paths, *paths], [f"{names[0]} (stock onnxruntime)", *names]
    figures = _measure(runners, threads, seconds, seed)
    speedups = [None, *figures.speedups]
    models = [
        {
            "file": name,
            "size_bytes": Path(path).stat().st_size,
            "inputs": {one_line(name): list(value.shape) for name, value in runner.feed.items()},
            "latency_ms": latency.to_json(),
            "speedup": speedup.to_json() if speedup else None,
            "kernels": report.summary(report.layers(runner.session)),
        }
        for path, name, runner, latency, speedup in zip(paths, names, runners, figures.latencies, speedups, strict=True)
    ]
    return {
        "schema": 1,
        "threads": threads,
        "seconds": seconds,
        "models": models,
        "environment": environment,
        "warnings": [*business(environment), *crowding(threads), *figures.warnings],
    }


def crowding(threads: int) -> tuple[str, ...]:
    """A warning when more threads are asked for than there are cores to run them."""
    cores = available_cores()
    if threads <= cores:
        return ()
    shared = f"{cores} core{'s' if cores > 1 else ''}"
    return (f"{threads} threads share {shared}: the figures say little about a machine with more",)


def _measure(runners: Sequence[Runner], threads: int, seconds: float, seed: int) -> Figures:
    # Only a session of one thread computes in the calling thread, whose processor time can be watched.
    rounds = take_turns(runners, seconds=seconds, seed=seed, watch=threads == 1)
    return summarise(rounds, [runner.name for runner in runners], threads, seed)


def _runner(
    model: Model,
    name: str,
    threads: int,
    feed: Feed | None,
    shapes: Mapping[str, int] | None,
    kernels: bool,
    seed: int,
) -> Runner:
    if isinstance(model, ort.InferenceSession):
        session = model
        opened = session.get_session_options().intra_op_num_threads
        if opened != threads:
            raise CheckError(
                f"threads is {threads} but session {name} was opened with {opened}; "
                f"open it with load(path, {threads}, spinning=False)"
            )
    else:
        # One thread has no pool; with more, an idle pool that spins would slow the other model down.
        session, name = load(model, threads, kernels, spinning=False), one_line(Path(model).name)
    given = feed if feed is not None else random_feed(session, shapes, seed=seed, name=name)
    return Runner(session=session, feed=given, name=name)
