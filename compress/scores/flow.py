"""SynFlow: what a weight carries from input to output, without data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.scores.probe import probe


def synflow(model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch]) -> list[Tensor]:
    """|∂R/∂W ⊙ W| with R the summed output for an all-ones input and absolute parameters (Tanaka et al. 2020).

    R = 1ᵀ Π|W| 1 has no summands, so biases and BatchNorm means count as 0 (they are, before training); then the
    scores that enter a hidden unit sum to those that leave it, and no layer is cut through before the last weight
    of a path. In float64 and eval mode: R of a deep network overflows float32. The paper prunes in 100 rounds and
    scores the pruned network anew in each (:class:`compress.methods.AtInit` with ``rounds=100``).

    Args:
        model, weights: as for :func:`compress.scores.snip`.
        batches: the first one says what shape the input has; its values are not read.

    Returns:
        float64, one tensor a weight, shaped like it.

    Raises:
        ValueError: no batch, or a forward pass without gradients.
    """
    first = next(iter(batches), None)
    if first is None or len(first[0]) == 0:
        raise ValueError("batches: there are none; SynFlow needs one to know the shape of the input")
    with probe(model, weights, dtype=torch.float64) as probed:
        probed.model.eval()
        with torch.no_grad():
            for name, tensor in (*probed.model.named_parameters(), *probed.model.named_buffers()):
                if name.rpartition(".")[2] in ("bias", "running_mean"):
                    tensor.zero_()
                elif tensor.is_floating_point():
                    tensor.abs_()
        ones = torch.ones(1, *first[0].shape[1:], dtype=torch.float64, device=probed.device)
        gradients = probed.gradients(probed.model(ones).sum())
        return [(g * w).abs() for g, w in zip(gradients, probed.values(), strict=True)]
