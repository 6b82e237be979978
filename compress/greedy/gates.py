"""Factors at the inputs of a group's consumers, for the time of a `with` block: the scales N·a_i, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.greedy.groups import ChannelGroup
from compress.shrink.layers import channel_dim, layer_size


class Gates:
    """One factor a unit, at every consumer."""

    def __init__(self, units: int) -> None:
        self.factors = torch.ones(units, dtype=torch.float64)


@contextmanager
def gated(model: nn.Module, group: ChannelGroup) -> Iterator[Gates]:
    """Within the block, what the consumers read of unit i is multiplied by `factors[i]` of the gates."""
    gates = Gates(group.units)
    handles = []
    try:
        for name, columns in group.consumers.items():
            module = model.get_submodule(name)
            handles.append(module.register_forward_pre_hook(_hook(module, torch.from_numpy(columns), gates)))
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _hook(module: nn.Module, columns: Tensor, gates: Gates) -> Callable[..., tuple[Tensor, ...]]:
    inputs, dim = layer_size(module).inputs, channel_dim(module)

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        factors = gates.factors.to(x.device, x.dtype)
        whole = torch.ones(inputs, device=x.device, dtype=x.dtype)
        whole = whole.index_put((columns.to(x.device),), factors[:, None].expand(-1, columns.shape[1]))
        return (x * whole.reshape(-1, *[1] * (-1 - dim)), *args[1:])

    return hook
