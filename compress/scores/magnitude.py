"""Magnitude of weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.subspace import coefficients


def magnitude(model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch] = ()) -> list[Tensor]:
    """|W| of every weight, masked coefficients included; needs no data.

    Args:
        model, weights: as for :func:`compress.scores.snip`.
        batches: not read.
    """
    return [coefficients(weight.module).abs() for weight in weights]
