"""The score of random pruning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.subspace import coefficients


def random(
    model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch] = (), *, seed: int = 0
) -> list[Tensor]:
    """Independent draws from U(0, 1), the same on every device for the same ``seed`` (000, section IV-A)."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [coefficients(weight.module) for weight in weights]
    return [torch.rand(tensor.shape, generator=generator).to(tensor.device) for tensor in tensors]
