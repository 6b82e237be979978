"""Labels of calibration and held-out batches, where a target is told by them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def check_labels(outputs: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Raise ValueError unless labels are whole numbers of classes, one for each place that has outputs.

    Args:
        outputs: [samples, classes, ...] of the model, for any batch.
        pairs: (inputs, labels) batches.
    """
    places, classes = outputs.shape[2:], outputs.shape[1]
    for number, (inputs, labels) in enumerate(pairs):
        if labels.is_floating_point() or labels.is_complex() or labels.shape != (len(inputs), *places):
            raise ValueError(
                f"batches: number {number} has labels of shape {list(labels.shape)} and {labels.dtype}; this target "
                f"wants a class for each sample, whole numbers of shape {[len(inputs), *places]}"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"batches: number {number} has labels from {low} to {high}, but the model has {classes} classes, 0 to "
                f"{classes - 1}"
            )
