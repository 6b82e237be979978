"""What shrinking knows about one layer: its channel counts, groups, and its weight in one common layout.

Index letters: G convolution groups, O output channels of one group, I input channels of one group, K kernel.
Output channel o of the layer is row o % O of group o // O; input channel i is column i % I of group i // I.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm


class FixedMap(Protocol):
    """A layer without weights whose output channel o copies input channel `source[o]`, or is zero where that is -1.

    Recognised by these four names alone (the option-A shortcut of the CIFAR ResNets is one). It counts as a
    1x1 convolution with a fixed 0/1 weight. `select` keeps the given channels, in the numbering before the call;
    a kept output whose source is dropped becomes zero.
    """

    in_channels: int
    out_channels: int
    source: Any

    def select(self, out_keep: Sequence[int], in_keep: Sequence[int]) -> None:
        """Keep only these channels, given by their present indices."""


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """Channel counts of a layer; `groups` divides both."""

    outputs: int
    inputs: int
    groups: int


def is_fixed_map(module: object) -> TypeGuard[FixedMap]:
    """Whether `module` follows the `FixedMap` protocol."""
    names = ("in_channels", "out_channels", "source", "select")
    return not isinstance(module, _ConvNd) and all(hasattr(module, name) for name in names)


def is_layer(module: object) -> bool:
    """Whether `module` mixes channels linearly and can be cut: convolution (also transposed), linear, fixed map."""
    return isinstance(module, _ConvNd | nn.Linear) or is_fixed_map(module)


def is_channelwise(module: object) -> bool:
    """Whether `module` treats every channel on its own and holds one number a channel: BatchNorm, PReLU, ..."""
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    return isinstance(module, _BatchNorm | _InstanceNorm)


def channelwise_size(module: nn.Module) -> int:
    """Channels of a module for which `is_channelwise` holds."""
    return int(module.num_parameters if isinstance(module, nn.PReLU) else module.num_features)  # type: ignore[arg-type]


def layer_size(module: nn.Module) -> LayerSize:
    """Channel counts of a module for which `is_layer` holds."""
    if isinstance(module, nn.Linear):
        return LayerSize(outputs=module.out_features, inputs=module.in_features, groups=1)
    if isinstance(module, _ConvNd):
        return LayerSize(outputs=module.out_channels, inputs=module.in_channels, groups=module.groups)
    if is_fixed_map(module):
        return LayerSize(outputs=int(module.out_channels), inputs=int(module.in_channels), groups=1)
    raise TypeError(f"{type(module).__name__} is no layer that shrinking knows")


def weight_blocks(module: nn.Module) -> Tensor:
    """The weight as [G, O, I, K], a view or a copy, detached."""
    size = layer_size(module)
    shape = (size.groups, size.outputs // size.groups, size.inputs // size.groups, -1)
    if is_fixed_map(module):
        source = torch.as_tensor(module.source).to("cpu", torch.int64)
        weight = torch.zeros(size.outputs, size.inputs)
        rows = torch.nonzero(source >= 0).flatten()
        weight[rows, source[rows]] = 1.0
        return weight.reshape(shape)
    weight = module.weight.detach()  # type: ignore[operator]
    if isinstance(module, _ConvTransposeNd):  # stored as [G*I, O, K...]
        return weight.reshape(shape[0], shape[2], shape[1], -1).transpose(1, 2)
    return weight.reshape(shape)


def weight_from_blocks(module: nn.Module, blocks: Tensor) -> Tensor:
    """The inverse of `weight_blocks` for a convolution or linear layer, with the channel counts of `blocks`."""
    groups, rows, columns, _ = blocks.shape
    if isinstance(module, nn.Linear):
        return blocks.reshape(rows, columns).contiguous()
    assert isinstance(module, _ConvNd)
    if isinstance(module, _ConvTransposeNd):
        return blocks.transpose(1, 2).reshape(groups * columns, rows, *module.kernel_size).contiguous()
    return blocks.reshape(groups * rows, columns, *module.kernel_size).contiguous()


def channel_dim(module: nn.Module) -> int:
    """Where the channels are in the input and the output of a layer, counted from the last dimension."""
    if isinstance(module, nn.Linear):
        return -1
    return -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else -3


def has_border(module: nn.Module) -> bool:
    """Whether a constant input channel may give another output at the border than in the middle.

    True for zero padding, for transposed convolutions (their windows overlap unevenly), and for a subclass with
    its own forward, of which nothing is known.
    """
    if isinstance(module, nn.Linear):
        return False
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return True
    if type(module).forward not in _STOCK_FORWARDS:
        return True
    return module.padding_mode == "zeros" and any(p > 0 for p in module._reversed_padding_repeated_twice)


_STOCK_FORWARDS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
