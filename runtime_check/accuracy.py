"""Accuracy: top-1 of both models on the same samples, and how sure the difference is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime_check.arrays import open_archive
from runtime_check.errors import CheckError, one_line
from runtime_check.feeds import SampleInput, check_samples, classify, sample_input
from runtime_check.intervals import paired_difference, wilson

Batches = Iterable[tuple[Any, Any]]

_BATCH_BYTES = 64 * 2**20
_MAX_LABEL_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class PairedAccuracy:
    """Top-1 of the baseline and of the compressed model on the same samples.

    `lost` samples only the baseline gets right, `won` only the compressed model.
    """

    samples: int
    baseline_correct: int
    compressed_correct: int
    lost: int
    won: int

    @property
    def drop_points(self) -> float:
        """Accuracy of the baseline minus accuracy of the compressed model, in percentage points."""
        return 100 * (self.lost - self.won) / self.samples

    @property
    def drop_ci95(self) -> tuple[float, float]:
        """Interval of `drop_points`, from the paired counts."""
        low, high = paired_difference(self.lost, self.won, self.samples)
        return 100 * low, 100 * high

    def side(self, correct: int) -> dict[str, Any]:
        """The accuracy keys of one side in report.json; accuracies are fractions in [0, 1]."""
        return {
            "accuracy": correct / self.samples,
            "accuracy_ci95": list(wilson(correct, self.samples)),
            "accuracy_samples": self.samples,
        }

    def to_json(self, source: str) -> dict[str, Any]:
        """The paired figures; `source` says which samples were used."""
        return {
            "source": source,
            "samples": self.samples,
            "drop_points": self.drop_points,
            "drop_ci95": list(self.drop_ci95),
            "lost": self.lost,
            "won": self.won,
        }


def compare_accuracy(
    baseline: ort.InferenceSession, compressed: ort.InferenceSession, batches: Batches
) -> PairedAccuracy:
    """Run both classifiers over `batches` of (inputs [B, ...], labels [B]) and count.

    A sample is right when the largest output is at its label; a sample whose outputs hold NaN is wrong.

    Raises:
        CheckError: no samples, or inputs or labels that do not fit the models.
    """
    samples = baseline_correct = compressed_correct = lost = won = 0
    for number, batch in enumerate(batches):
        inputs, labels = _arrays(batch, number)
        if len(inputs) == 0:
            continue
        first = _right(classify(baseline, inputs, "dense.onnx"), labels)
        second = _right(classify(compressed, inputs, "model.onnx"), labels)
        samples += len(labels)
        baseline_correct += int(first.sum())
        compressed_correct += int(second.sum())
        lost += int((first & ~second).sum())
        won += int((second & ~first).sum())
    if samples == 0:
        raise CheckError("data holds no samples; give at least one batch of (inputs, labels)")
    return PairedAccuracy(
        samples=samples,
        baseline_correct=baseline_correct,
        compressed_correct=compressed_correct,
        lost=lost,
        won=won,
    )


def read_data(path: str | os.PathLike[str], session: ort.InferenceSession) -> Iterator[tuple[Any, Any]]:
    """Read `inputs` [N, ...] and `labels` [N] of an .npz batch by batch, ready for `session`.

    Only one batch is in memory at a time. Nothing is normalised: the inputs are what the model takes.

    Raises:
        CheckError: a missing or damaged file, or arrays that do not fit the model.
    """
    file = Path(path)
    name = one_line(file.name)
    if not file.is_file():
        raise CheckError(f"data file {one_line(file)} does not exist; give an .npz with arrays inputs and labels")
    return _data_batches(file, name, sample_input(session, "model.onnx"))


def _data_batches(file: Path, name: str, model: SampleInput) -> Iterator[tuple[Any, Any]]:
    with file.open("rb") as stream, open_archive(stream, name) as archive:
        inputs, labels = archive.header("inputs"), archive.header("labels")
        if inputs.dtype.kind != "f":
            raise CheckError(f"{name}: 'inputs' must be floats as the model takes them, but has type {inputs.dtype}")
        if labels.dtype.kind not in "iu" or len(labels.shape) != 1:
            raise CheckError(f"{name}: 'labels' must be integers of shape [N], but is {labels.dtype}{labels.shape}")
        if not inputs.shape or inputs.shape[0] != labels.shape[0]:
            raise CheckError(f"{name}: 'inputs' {inputs.shape} and 'labels' {labels.shape} differ in length")
        if labels.size_bytes > _MAX_LABEL_BYTES:
            raise CheckError(f"{name}: 'labels' has {labels.size_bytes} bytes, more than the {_MAX_LABEL_BYTES} read")
        check_samples(model, inputs.shape, "model.onnx")
        row_bytes = inputs.size_bytes // max(inputs.shape[0], 1)
        if row_bytes > _BATCH_BYTES:
            raise CheckError(f"{name}: one sample has {row_bytes} bytes, more than the {_BATCH_BYTES} read at once")
        targets = archive.read("labels")
        rows = max(1, min(256, _BATCH_BYTES // max(row_bytes, 1)))
        for start, batch in zip(range(0, len(targets), rows), archive.batches("inputs", rows), strict=True):
            yield batch, targets[start : start + rows]


def _arrays(batch: object, number: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise CheckError(f"data must give pairs (inputs, labels); item {number} is a {type(batch).__name__}")
    inputs, labels = np.asarray(batch[0]), np.asarray(batch[1])
    if inputs.dtype.kind != "f":
        raise CheckError(f"data: inputs of batch {number} must be floats, but have type {inputs.dtype}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or inputs.ndim < 1 or len(inputs) != len(labels):
        raise CheckError(
            f"data: labels of batch {number} must be integers, one for each of its inputs {inputs.shape}, "
            f"but are {labels.dtype}{list(labels.shape)}"
        )
    return inputs, labels.astype(np.int64)


def _right(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    classes = scores.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise CheckError(f"labels must lie between 0 and {classes - 1}, the classes of the model")
    right: NDArray[np.bool_] = (scores.argmax(axis=1) == labels) & ~np.isnan(scores).any(axis=1)
    return right
