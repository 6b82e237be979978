"""From chosen units and their shares to scaled weights, and to the shrink plan that cuts the rest away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.greedy.groups import ChannelGroup, Network
from compress.greedy.local import Imitation
from compress.shrink.channels import Indices
from compress.shrink.layers import is_layer, layer_size, weight_blocks, weight_from_blocks
from compress.shrink.plan import ChannelCut, LayerCut, ShrinkPlan
from compress.shrink.propose import head_cuts

Flags = NDArray[np.bool_]
Vector = NDArray[np.float64]
Thinned = Sequence[tuple[ChannelGroup, Imitation]]


def scales(group: ChannelGroup, imitation: Imitation) -> Vector:
    """[N] the factor N·a_i of every unit, 0 for those that go."""
    return group.units * imitation.dense(group.units)


@torch.no_grad()
def scale_consumers(model: nn.Module, group: ChannelGroup, factors: Vector) -> None:
    """Multiply what every consumer reads of unit i by `factors[i]`, in place: the scaled-and-masked network."""
    for name, columns in group.consumers.items():
        module = model.get_submodule(name)
        size = layer_size(module)
        whole = np.ones(size.inputs)
        whole[columns] = factors[:, None]
        weight = weight_blocks(module)
        factor = torch.from_numpy(whole).to(weight.device).reshape(size.groups, 1, -1, 1)
        module.weight.copy_(weight_from_blocks(module, (weight.double() * factor).to(weight.dtype)))  # type: ignore[operator]


@torch.no_grad()
def settle(model: nn.Module, group: ChannelGroup, imitation: Imitation, weights: Mapping[str, Tensor]) -> None:
    """Scale and mask the group's consumers in place; those with refitted `weights` take them instead."""
    scale_consumers(model, group, scales(group, imitation))
    for name, weight in weights.items():
        model.get_submodule(name).weight.copy_(weight)  # type: ignore[operator]


def shrink_plan(model: nn.Module, network: Network, thinned: Thinned, *, scaled: bool = True) -> ShrinkPlan:
    """The plan that keeps the chosen units and folds their scales into the consumers.

    Args:
        model: the model at its original size; only its layers' sizes are read.
        network: its groups.
        thinned: groups with what stays of them; the others stay whole.
        scaled: whether scales are folded; False where the consumers' weights hold them already.
    """
    channels = network.channels
    removed = np.zeros(channels.count, dtype=bool)
    factors: dict[str, Vector] = {}
    for group, imitation in thinned:
        gone = np.ones(group.units, dtype=bool)
        gone[imitation.kept] = False
        removed[group.atoms[gone]] = True
        for name, columns in group.consumers.items():
            if scaled:
                whole = factors.setdefault(name, np.ones(len(channels.inputs[name])))
                whole[columns] = scales(group, imitation)[:, None]
    layers = {
        name: _layer_cut(module, channels.outputs[name], channels.inputs[name], removed, factors.get(name))
        for name, module in model.named_modules()
        if is_layer(module)
    }
    cuts = {name: ChannelCut(channels=len(row), kept=_kept(row, removed)) for name, row in channels.through.items()}
    layers = {name: cut for name, cut in layers.items() if _does_something(cut)}
    return ShrinkPlan(
        layers=layers,
        channels={name: cut for name, cut in cuts.items() if len(cut.kept) < cut.channels},
        heads=head_cuts(channels, removed, layers),
    )


def _layer_cut(
    module: nn.Module, outputs: Indices, inputs: Indices, removed: Flags, factors: Vector | None
) -> LayerCut:
    size = layer_size(module)
    kept_outputs, kept_inputs = _kept(outputs, removed), _kept(inputs, removed)
    rows = size.outputs // size.groups
    return LayerCut(
        outputs=size.outputs,
        inputs=size.inputs,
        kept_outputs=kept_outputs,
        kept_inputs=kept_inputs,
        groups=len({index // rows for index in kept_outputs}),
        scales=() if factors is None else tuple((i, float(factors[i])) for i in kept_inputs if factors[i] != 1),
    )


def _does_something(cut: LayerCut) -> bool:
    whole = len(cut.kept_outputs) == cut.outputs and len(cut.kept_inputs) == cut.inputs
    return not whole or bool(cut.scales)


def _kept(row: Indices, removed: Flags) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(~(removed[row] & (row >= 0)))))
