"""GraSP: what a weight does for the gradient flow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compress.checks import require
from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.scores.probe import losses, mean_gradients, probe

TEMPERATURE = 200.0


def grasp(
    model: nn.Module,
    weights: Sequence[PrunableWeight],
    batches: Iterable[Batch],
    *,
    temperature: float = TEMPERATURE,
) -> list[Tensor]:
    """W ⊙ Hg, g the gradient and H the Hessian of the loss (Wang et al. 2020, GraSP; 000, section III-A).

    The paper removes the weights of largest −W ⊙ Hg; here the sign is turned, so that larger lives as with every
    other score, and negative values are possible. One Hessian-vector product, no Hessian.

    Args:
        model, weights, batches: as for :func:`compress.scores.snip`; the paper takes ten samples a class
            (:func:`compress.sampling.class_balanced`). They are gone through twice and kept in memory.
        temperature: logits are divided by it before the softmax.

    Raises:
        ValueError: as for :func:`compress.scores.snip`.
    """
    require(temperature > 0, "temperature", temperature, "a positive number")
    kept = list(batches)
    with probe(model, weights) as probed:
        direction = mean_gradients(probed, losses(probed, kept, temperature=temperature))
        products = [torch.zeros_like(beta) for beta in probed.coefficients]
        samples = 0
        for loss, count in losses(probed, kept, temperature=temperature):
            gradients = probed.gradients(loss, create_graph=True)
            inner = torch.stack([(g * d).sum() for g, d in zip(gradients, direction, strict=True)]).sum()
            for summed, product in zip(products, probed.gradients(inner), strict=True):
                summed += count * product
            samples += count
        return [w * product / samples for w, product in zip(probed.values(), products, strict=True)]
