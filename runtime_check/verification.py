"""The whole check of a bundle: files, parity, accuracy, latency, verdict, as one document."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime_check.accuracy import Batches, PairedAccuracy, compare_accuracy, read_data
from runtime_check.bundle import BASELINE, MODEL, Bundle, read_bundle
from runtime_check.environment import business, describe
from runtime_check.errors import CheckError
from runtime_check.feeds import check_samples, sample_input
from runtime_check.kernels import report
from runtime_check.latency import compare
from runtime_check.parity import Parity, check_parity
from runtime_check.session import load_bytes, measuring_time, thread_count
from runtime_check.verdict import MIN_AGREEMENT, PARITY_TOLERANCE, Limits, default_tolerance, judge

_LOG = logging.getLogger(__name__)
_MAX_SAMPLES = 500


def verify(
    bundle: str | os.PathLike[str],
    *,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    max_latency_ms: float | None = None,
    threads: Sequence[int] = (1,),
    data: Batches | str | os.PathLike[str] | None = None,
    seconds: float = 2.0,
    kernels: bool = True,
    parity_tolerance: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Check a bundle folder and return the document of report.json (plain JSON types, no NaN).

    Parity is measured on the golden sample; accuracy on it too, or on `data` where given. Latency is measured
    with batch 1 (or the batch that the files are fixed to) on the first golden samples.

    Args:
        bundle: the folder.
        max_drop: gate: accuracy of dense minus accuracy of the model, in percentage points, at most.
        min_speedup: gate: dense latency over model latency, at least.
        max_latency_ms: gate: median latency, at most.
        threads: thread counts to measure with; the gates look at the first.
        data: an .npz with arrays inputs and labels, or an iterable of (inputs, labels) batches.
        seconds: measuring time for each number of threads, for both models together.
        kernels: as in `load`, for model.onnx; dense.onnx always runs in stock onnxruntime.
        parity_tolerance: gate: largest relative difference from the torch outputs; None takes 1e-3, or 1e-2
            where the recipe stores float16 values.
        seed: of the measuring order and the bootstrap.

    Raises:
        CheckError: the bundle or an argument cannot be used; one line that says which and why.
    """
    counts, seconds = _thread_counts(threads), measuring_time(seconds)
    limits = Limits(
        max_drop=max_drop,
        min_speedup=min_speedup,
        max_latency_ms=max_latency_ms,
        parity_tolerance=PARITY_TOLERANCE if parity_tolerance is None else parity_tolerance,
    )
    environment = describe(kernels=kernels)
    content = read_bundle(bundle)
    if parity_tolerance is None:
        limits = limits.with_tolerance(default_tolerance(content.manifest.get("recipe")))
    _LOG.info("every file matches the manifest")

    dense, model, *first_load = _open_both(content, counts[0], kernels)
    parity = check_parity(model, content.golden.inputs, content.golden.outputs)
    _LOG.info("parity: largest relative difference %s", parity.max_rel_diff)
    golden = compare_accuracy(dense, model, [(content.golden.inputs, content.golden.labels)])
    accuracy, source = (golden, "golden") if data is None else (_on_data(dense, model, data), "data")
    _LOG.info("accuracy: drop of %.2f points on %d samples", accuracy.drop_points, accuracy.samples)

    batch = _latency_batch(content, dense, model)
    comparisons = []
    for count in counts:
        if count != counts[0]:
            dense, model, *_ = _open_both(content, count, kernels)
        _LOG.info("latency: measuring with %d thread%s for %g s", count, "" if count == 1 else "s", seconds)
        feed = {sample_input(model, MODEL).name: batch}
        comparisons.append(
            compare(dense, model, threads=count, seconds=seconds, feed=feed, seed=seed, names=(BASELINE, MODEL))
        )

    warnings = [
        *business(environment),
        *_doubts(parity, len(batch)),
        *(warning for comparison in comparisons for warning in comparison.warnings),
    ]
    first = comparisons[0]
    # The first session of a process pays for onnxruntime's own start: each file is opened twice, in turns.
    load_ms = [min(pair) for pair in zip(first_load, _open_both(content, counts[0], kernels)[2:], strict=True)]
    sides = {
        "baseline": (first.baseline, accuracy.baseline_correct, len(content.baseline), load_ms[0]),
        "compressed": (first.compressed, accuracy.compressed_correct, len(content.model), load_ms[1]),
    }
    return {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **{
            side: {
                **accuracy.side(correct),
                "latency_ms": latency.to_json(),
                **content.figures[side],
                "size_bytes": size_bytes,
                "load_ms": loaded,
            }
            for side, (latency, correct, size_bytes, loaded) in sides.items()
        },
        "speedup": first.speedup.to_json(),
        "latency_by_threads": [comparison.to_json() for comparison in comparisons],
        "latency_samples": {
            "baseline": _thin(first.baseline.samples_ms),
            "compressed": _thin(first.compressed.samples_ms),
        },
        "parity": parity.to_json(),
        "accuracy": accuracy.to_json(source),
        "stages": [],
        "kernels": report.summary(report.layers(model)),
        "environment": environment,
        "recipe": content.manifest.get("recipe"),
        "verdict": judge(limits, parity=parity, accuracy=accuracy, latency=first, warnings=warnings),
    }


def _thread_counts(threads: Sequence[int]) -> list[int]:
    if isinstance(threads, int) or not threads:
        raise CheckError("threads must be a sequence of at least one number of threads, such as (1,)")
    return list(dict.fromkeys(thread_count(count) for count in threads))


def _open_both(
    content: Bundle, threads: int, kernels: bool
) -> tuple[ort.InferenceSession, ort.InferenceSession, float, float]:
    """Open dense and model for timing; returns both and the milliseconds each took to open."""
    start = perf_counter()
    dense = load_bytes(content.baseline, BASELINE, threads, kernels=False, spinning=False)
    middle = perf_counter()
    model = load_bytes(content.model, MODEL, threads, kernels, spinning=False)
    return dense, model, 1e3 * (middle - start), 1e3 * (perf_counter() - middle)


def _on_data(
    dense: ort.InferenceSession, model: ort.InferenceSession, data: Batches | str | os.PathLike[str]
) -> PairedAccuracy:
    if isinstance(data, str | os.PathLike):
        return compare_accuracy(dense, model, read_data(data, model))
    return compare_accuracy(dense, model, data)


def _latency_batch(
    content: Bundle, dense: ort.InferenceSession, model: ort.InferenceSession
) -> NDArray[np.floating[Any]]:
    """The inputs both models are timed on: the first golden sample, or as many as the files are fixed to."""
    a, b = sample_input(dense, BASELINE), sample_input(model, MODEL)
    if (a.name, a.dtype, a.batch) != (b.name, b.dtype, b.batch):
        raise CheckError(f"{BASELINE} and {MODEL} take different inputs; export both from the same example input")
    check_samples(a, content.golden.inputs.shape, BASELINE)
    samples = np.resize(np.arange(len(content.golden.inputs)), b.batch or 1)
    return np.ascontiguousarray(content.golden.inputs[samples], dtype=b.dtype)


def _doubts(parity: Parity, batch: int) -> list[str]:
    doubts = []
    if parity.argmax_agreement < MIN_AGREEMENT:
        share = 1 - parity.argmax_agreement
        doubts.append(f"the top class differs from torch's for {share:.2%} of the golden sample")
    if batch != 1:
        doubts.append(f"the files are fixed to batches of {batch}: latency is that of a whole batch")
    return doubts


def _thin(samples_ms: NDArray[np.float64]) -> list[float]:
    """At most 500 timings, evenly out of the whole time."""
    count = min(len(samples_ms), _MAX_SAMPLES)
    index = np.linspace(0, len(samples_ms) - 1, count).round().astype(int)
    return [float(value) for value in samples_ms[index]]
