"""Filter bases: K×K kernels as combinations of few shared filters, and how those filters begin.

A kernel is φ^(i,j) = Σ_k β_k^(i,j) F^(k) (002, equation (5.5)). K² filters F that span all kernels are a basis; fewer
are an undercomplete dictionary, more an overcomplete one (002, section 5.5.4).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Initialisation = Literal["standard", "onb", "random", "fitted"]
INITIALISATIONS: tuple[Initialisation, ...] = ("standard", "onb", "random", "fitted")

_ORTHONORMAL = 1e-5


class Basis(nn.Module):
    """Φ: coefficients to kernels, with filters that are trained like any parameter.

    Several layers may hold the same ``Basis``; then its filters are one parameter of the model.

    Args:
        filters: [groups, n, kernel height, kernel width], floating point.
        axis: where there are several groups, the axis of the weight along which each serves ``channels``
            neighbours: 0 output, 1 input channels.
        channels: number of those neighbours; the last group may serve fewer.
    """

    def __init__(self, filters: Tensor, *, axis: int = 0, channels: int = 1) -> None:
        super().__init__()
        self.filters = nn.Parameter(filters)
        self.axis = axis
        self.channels = channels

    @property
    def size(self) -> int:
        """Filters that span a kernel, n."""
        return self.filters.shape[1]

    def forward(self, coefficients: Tensor) -> Tensor:
        """Kernels [out, in, K, K] from coefficients [out, in, n]; equation (5.5)."""
        return self._mapped(coefficients, self.filters.flatten(2)).unflatten(2, self.filters.shape[2:])  # type: ignore[no-untyped-call, no-any-return]

    @torch.no_grad()
    def coefficients(self, weight: Tensor) -> Tensor:
        """Coefficients [out, in, n] of the kernels nearest to ``weight`` [out, in, K, K], the shortest where many fit.

        Least squares; Aᵀφ where the filters are orthonormal. With K² independent filters the kernels are
        ``weight`` itself up to rounding.
        """
        filters = self.filters.flatten(2).double()
        gram = filters @ filters.mT
        unit = torch.eye(self.size, dtype=gram.dtype, device=gram.device)
        orthonormal = bool(((gram - unit).abs() < _ORTHONORMAL).all())
        inverse = filters.mT if orthonormal else torch.linalg.pinv(filters)
        return self._mapped(weight.flatten(2), inverse.to(weight.dtype))

    def of_channels(self, count: int) -> Tensor:
        """The filters of each of ``count`` channels of ``axis``: [count, n, K, K]."""
        return self._spread(self.filters, count)

    def _mapped(self, values: Tensor, matrices: Tensor) -> Tensor:
        """[out, in, b] from values [out, in, a] and one matrix [a, b] a group."""
        if len(matrices) == 1:
            return values @ matrices[0]
        each = self._spread(matrices, values.shape[self.axis])
        if self.axis == 0:
            return torch.bmm(values, each)
        return torch.bmm(values.transpose(0, 1), each).transpose(0, 1).contiguous()

    def _spread(self, groups: Tensor, count: int) -> Tensor:
        if len(groups) == 1:
            return groups.expand(count, *groups.shape[1:])
        return groups.repeat_interleave(self.channels, dim=0)[:count]


def standard(kernel: tuple[int, int]) -> Tensor:
    """[K², K, K] unit filters, one entry each: the coefficients are the weights (002, Algorithm 5.1, lines 6-9)."""
    return torch.eye(math.prod(kernel), dtype=torch.float64).view(-1, *kernel)


def onb(kernel: tuple[int, int], generator: torch.Generator) -> Tensor:
    """[K², K, K] random orthonormal filters: Gram-Schmidt on Gaussian ones (002, Algorithm 5.1, lines 10-12)."""
    size = math.prod(kernel)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    orthogonal, triangular = torch.linalg.qr(drawn.T)
    # Gram-Schmidt never turns a vector round; a QR decomposition may.
    filters: Tensor = orthogonal * triangular.diagonal().sign()
    return filters.T.reshape(size, *kernel)


def random(kernel: tuple[int, int], size: int, generator: torch.Generator) -> Tensor:
    """[n, K, K] random filters with Σ_k F^(k) = 1 and Σ_k (F^(k))² = 1 in every entry (002, Algorithm 5.1, line 16-19).

    F = √(1/n − 1/n²) z + 1/n with z the Gaussian draws, normalised over k. Independent coefficients of variance σ²
    then make kernels of variance σ². Line 19 divides by the variance of the draws where this needs their standard
    deviation.
    """
    drawn = torch.randn(size, *kernel, generator=generator, dtype=torch.float64)
    deviation = drawn.std(dim=0, correction=0)
    normal = (drawn - drawn.mean(dim=0)) / deviation.clamp(min=torch.finfo(drawn.dtype).tiny)
    return math.sqrt(1 / size - 1 / size**2) * normal + 1 / size


def fitted(kernels: Tensor, size: int) -> Tensor:
    """[n, K, K] orthonormal filters whose span is nearest to ``kernels`` [count, K, K]: their first singular vectors.

    The coefficients of trained kernels are then few and large (Eckart & Young 1936): the start of pruning a trained
    model in the interspace (IP-FT, 002, section 5.5.1).
    """
    flat = kernels.flatten(1).double()
    vectors: Tensor = torch.linalg.eigh(flat.mT @ flat).eigenvectors
    return vectors.flip(-1).mT[:size].reshape(size, *kernels.shape[1:])


def kaiming(weight: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Coefficients [out, in, n] from N(0, 2 / (in · K²)) for ``weight`` [out, in, K, K] (Algorithm 5.1, line 20)."""
    deviation = math.sqrt(2 / weight[0].numel())
    drawn = deviation * torch.randn(*weight.shape[:2], size, generator=generator, dtype=torch.float64)
    return drawn.to(weight.device, weight.dtype)
