"""Scores from one gradient of the loss: SNIP, USNIP and the gradient itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.scores.probe import losses, mean_gradients, probe


def snip(model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch]) -> list[Tensor]:
    """|∂L/∂W ⊙ W|, connection sensitivity (Lee et al. 2019, SNIP; 000, section III-A).

    Args:
        model: any classifier, plain or with the formula attached; it is not changed.
        weights: what :func:`compress.prunable.prunable_weights` lists.
        batches: (inputs, integer targets); the loss is the mean over all samples of all of them.

    Returns:
        One tensor a weight, shaped like it, larger is more important.

    Raises:
        ValueError: no batch, or a forward pass without gradients.
    """
    with probe(model, weights) as probed:
        gradients = mean_gradients(probed, losses(probed, batches))
        return [(g * w).abs() for g, w in zip(gradients, probed.values(), strict=True)]


def usnip(
    model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch], *, seed: int = 0
) -> list[Tensor]:
    """SNIP without supervision: the loss takes labels drawn uniformly at random (000, section IV-D).

    Args, returns and errors as for :func:`snip`; ``seed`` draws the labels.
    """
    labels = torch.Generator().manual_seed(seed)
    with probe(model, weights) as probed:
        gradients = mean_gradients(probed, losses(probed, batches, labels=labels))
        return [(g * w).abs() for g, w in zip(gradients, probed.values(), strict=True)]


def gradient(model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch]) -> list[Tensor]:
    """|∂L/∂W|, also of masked weights: what RigL grows by (Evci et al. 2020, RigL, section 3).

    Args, returns and errors as for :func:`snip`.
    """
    with probe(model, weights) as probed:
        return [g.abs() for g in mean_gradients(probed, losses(probed, batches))]
