"""Magnitude: of weights, or of filters as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.prunable import PrunableWeight, stored_weight
from compress.scores.probe import Batch

Structure = Literal["weights", "filters"]
STRUCTURES: tuple[Structure, ...] = ("weights", "filters")


def magnitude(weight: Tensor, *, structure: Structure = "weights", filter_axis: int = 0) -> Tensor:
    """|w| of each weight, or the L2 norm of each filter (003, section 6, structured pruning).

    Args:
        weight: [out, in, ...], out at ``filter_axis``.
        structure: the unit that is scored.
        filter_axis: axis of the output channels.

    Returns:
        "weights": the weight's shape. "filters": all axes but ``filter_axis`` of size 1, so that a mask of
        this shape broadcasts to the weight.
    """
    return per_unit(weight.detach().abs(), structure=structure, filter_axis=filter_axis, norm=True)


def per_unit(score: Tensor, *, structure: Structure, filter_axis: int, norm: bool = False) -> Tensor:
    """Scores of units from scores of weights: of a filter their sum, or with ``norm`` their L2 norm.

    A sum is what a score that is linear in the mask gives a filter (000, section III-A).
    """
    if structure == "weights":
        return score
    others = [axis for axis in range(score.dim()) if axis != filter_axis]
    if not norm:
        return score.sum(dim=others, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(score, dim=others, keepdim=True)
    return norms


def magnitudes(model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch] = ()) -> list[Tensor]:
    """|W| of every weight, masked coefficients included; needs no data."""
    return [stored_weight(weight.module).detach().abs() for weight in weights]
