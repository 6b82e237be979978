"""Inner products of what the channels of one group add to what one consumer computes, streamed over batches.

A *unit* is what stays or goes as a whole: M input columns of the consumer, one unless channels are tied together or
a flatten stands before it. Per sample and output position p, unit i adds u_i(p) = Σ_o W_o[:, i] x_o[p, i] to the
output, o over the M columns and the K kernel offsets; biases and other groups' columns cancel in f − F. Wanted is
⟨u_i, u_j⟩ = Σ_p u_i(p)·u_j(p), a mean over samples and a sum over positions and outputs. Two exact ways:

- by covariance, Σ_{o,o'} (W_oᵀ W_o')_ij (Σ_p x_o x_o'ᵀ)_ij: nothing is ever computed per output;
- direct, u itself and its products, for wide flattened inputs whose covariance would not fit.

All sums are float64. Memory: the covariance, about `COVARIANCE_BYTES` at most or else the [N, N] result, and the
patches of as many samples at a time as fit `PATCH_BYTES`, of one at least. The number of batches does not matter.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from compress.shrink.layers import layer_size, weight_blocks

Matrix = NDArray[np.float64]

COVARIANCE_BYTES = 512 << 20
PATCH_BYTES = 256 << 20
_BLOCK = 128  # columns of a block row of the covariance: thinner products are slow


class Moments:
    """⟨u_i, u_j⟩ of one consumer, summed up batch by batch.

    Args:
        module: a convolution (not transposed) or linear layer; its weights are read now.
        columns: [units, M] the input channels of each unit.
    """

    def __init__(self, module: nn.Module, columns: NDArray[np.int64]) -> None:
        self.module = module
        self.units = len(columns)
        self.samples = 0
        self.parts = [
            _GroupMoments(members, picked, weight)
            for members, picked, weight in _by_convolution_group(module, np.asarray(columns))
        ]

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take in one batch of the consumer's input.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        if not bool(torch.isfinite(x).all()):
            raise ValueError("batches: activations are NaN or infinite; check the calibration data and the model")
        for part in self.parts:
            sample_bytes = 8 * part.units * len(part.weight) * positions(self.module, x)
            for chunk in torch.split(x, max(1, PATCH_BYTES // sample_bytes)):
                part.add(patches(self.module, chunk, part.columns))
        self.samples += len(x)

    def products(self) -> Matrix:
        """[units, units] mean over samples of ⟨u_i, u_j⟩.

        Raises:
            ValueError: no batch was added.
        """
        if self.samples == 0:
            raise ValueError("batches: empty; the statistics need at least one batch")
        total = np.zeros((self.units, self.units))
        for part in self.parts:
            total[np.ix_(part.members, part.members)] += part.products().cpu().numpy()
        return total / self.samples


class _GroupMoments:
    """The units within one convolution group, whose weight is [O, I, K].

    An *offset* is a column of the unit and a place in the kernel. The covariance is kept in block rows of a few offsets
    each, from the diagonal on: (first offset, [n · units, later offsets · units]).
    """

    def __init__(self, members: NDArray[np.int64], columns: Tensor, weight: Tensor) -> None:
        self.members = members
        self.columns = columns  # [M, units] input channels of the layer
        self.units = columns.shape[1]
        self.weight = weight.permute(1, 3, 0, 2).flatten(0, 1)  # [offsets, outputs, units]
        offsets, step = len(self.weight), max(1, _BLOCK // self.units)
        self.covariance: list[tuple[int, Tensor]] | None = None
        if 4 * (offsets * self.units) ** 2 <= COVARIANCE_BYTES:
            self.covariance = [
                (o, weight.new_zeros(min(step, offsets - o) * self.units, (offsets - o) * self.units))
                for o in range(0, offsets, step)
            ]
        self.direct = self.weight.new_zeros(self.units, self.units)

    def add(self, rows: Tensor) -> None:
        """Take in [P, offsets · units]."""
        if self.covariance is None:
            self._add_directly(rows.reshape(len(rows), -1, self.units).permute(1, 0, 2))
            return
        for o, sums in self.covariance:
            start = o * self.units
            sums.addmm_(rows[:, start : start + len(sums)].T, rows[:, start:])

    def _add_directly(self, x: Tensor) -> None:
        outputs = self.weight.shape[1]
        for part in torch.split(x, max(1, PATCH_BYTES // (8 * outputs * self.units)), dim=1):
            u = torch.einsum("opi,oci->ipc", part, self.weight).flatten(1)
            self.direct.addmm_(u, u.T)

    def covariance_of(self, kept: NDArray[np.int64]) -> Tensor:
        """[offsets · units, offsets · kept] sums of products of what all units read and what some of them do."""
        assert self.covariance is not None
        offsets = len(self.weight)
        found = self.weight.new_empty(offsets, self.units, offsets, len(kept))
        for o, sums in self.covariance:
            block = sums.reshape(-1, self.units, offsets - o, self.units)
            end = o + len(block)
            found[o:end, :, o:] = block[..., kept]
            found[end:, :, o:end] = block[:, kept, end - o :].permute(2, 3, 0, 1)
        return found.flatten(2).flatten(0, 1)

    def products(self) -> Tensor:
        if self.covariance is None:
            return self.direct
        total = torch.zeros_like(self.direct)
        for o, sums in self.covariance:
            weights = self.weight[o:].permute(1, 0, 2).flatten(1)  # [outputs, later offsets · units]
            products = sums * (weights[:, : len(sums)].T @ weights)
            blocks = products.reshape(-1, self.units, len(self.weight) - o, self.units)
            later = blocks[:, :, len(blocks) :].sum((0, 2))
            total += blocks[:, :, : len(blocks)].sum((0, 2)) + later + later.T
        return total


def positions(module: nn.Module, x: Tensor) -> int:
    """Output positions of one sample of its input `x`."""
    if isinstance(module, nn.Linear):
        return x[0].numel() // module.in_features
    assert isinstance(module, _ConvNd)
    padding = module._reversed_padding_repeated_twice[::-1]
    found = 1
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        size = x.shape[2 + axis] + padding[2 * axis] + padding[2 * axis + 1]
        found *= (size - dilation * (kernel - 1) - 1) // stride + 1
    return found


def patches(module: nn.Module, x: Tensor, columns: Tensor) -> Tensor:
    """[P, M · K · units] float64: for every sample and output position what lies under the K kernel entries.

    Args:
        module: a convolution or linear layer.
        x: its input: [batch, inputs, *spatial], or [..., inputs] for a linear layer.
        columns: [M, units] which input channels.
    """
    if isinstance(module, nn.Linear):
        return x.reshape(-1, module.in_features)[:, columns.flatten()].double()
    assert isinstance(module, _ConvNd)
    x = x[:, columns.flatten()]
    padding = module._reversed_padding_repeated_twice
    if any(padding):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = functional.pad(x, padding, mode=mode)
    x = x.movedim(1, -1).double().contiguous()  # units last, so that the copies below are of whole runs of memory
    dims = len(module.kernel_size)
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        x = x.unfold(1 + axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    x = x.reshape(*x.shape[: 1 + dims], *columns.shape, *x.shape[2 + dims :])
    x = x.movedim(2 + dims, -1)  # [batch, *positions, M, *kernel, units]
    return x.reshape(x.shape[: 1 + dims].numel(), -1)


def _by_convolution_group(
    module: nn.Module, columns: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """(units, [M, units] columns, [outputs, M, units, K] weight) for every convolution group that units reach."""
    size = layer_size(module)
    width = size.inputs // size.groups
    weight = weight_blocks(module).double()
    found = []
    for group in range(size.groups):
        inside = columns // width == group
        members = np.flatnonzero(inside.any(axis=1))
        if not len(members):
            continue
        counts = inside[members].sum(axis=1)
        if len(set(counts.tolist())) > 1:
            raise ValueError("columns: the units reach a convolution group with unequal numbers of channels")
        picked = torch.from_numpy(columns[members][inside[members]].reshape(len(members), -1).T.copy())
        found.append((members, picked.to(weight.device), weight[group][:, picked - group * width]))
    return found
