"""Carry out a shrink plan on a model: fold constants, then slice weights. The only place that changes a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.attention import OpenAttention, opened
from compress.shrink.layers import (
    LayerSize,
    channelwise_size,
    is_channelwise,
    is_fixed_map,
    is_layer,
    layer_size,
    weight_blocks,
    weight_from_blocks,
)
from compress.shrink.plan import ChannelCut, HeadCut, LayerCut, PlanError, ShrinkPlan


def apply_plan(model: nn.Module, plan: ShrinkPlan) -> nn.Module:
    """Cut `model` as `plan` says, in place, and return it.

    On a copy of the masked model this gives the same shrunk model again; on a freshly built one it gives the
    architecture, into which the saved weights are then loaded. Cut parameters are new objects (build the optimizer
    afterwards); their `requires_grad`, dtype, device and the train/eval modes stay, gradients are dropped. An attention
    that loses heads is replaced by its opened twin, without hooks.

    Raises:
        PlanError: (a ValueError) the plan belongs to another model. Nothing has been changed then.
    """
    modules = dict(model.named_modules())
    steps: list[Callable[[], object]] = []
    last: list[Callable[[], object]] = []
    for name, head_cut in plan.heads.items():
        module = _find(modules, name)
        attention = _plan_heads(name, module, head_cut, plan)
        if attention is not module:
            modules |= {f"{name}.{inner}": part for inner, part in attention.named_modules() if inner}
            steps.append(partial(model.set_submodule, name, attention))
        last.append(partial(attention.keep_heads, head_cut.kept))
    for name, cut in plan.layers.items():
        module = _find(modules, name)
        steps.append(_plan_layer(name, module, cut))
    for name, channel_cut in plan.channels.items():
        module = _find(modules, name)
        steps.append(_plan_channels(name, module, channel_cut))
    for step in (*steps, *last):
        step()
    return model


def kept_blocks(size: LayerSize, cut: LayerCut) -> list[tuple[int, list[int], list[int]]]:
    """(group, kept rows in it, kept columns in it) for every convolution group that stays.

    Raises:
        PlanError: the kept channels do not form groups of one size.
    """
    rows_of: dict[int, list[int]] = {}
    columns_of: dict[int, list[int]] = {}
    rows, columns = size.outputs // size.groups, size.inputs // size.groups
    for index in cut.kept_outputs:
        rows_of.setdefault(index // rows, []).append(index % rows)
    for index in cut.kept_inputs:
        columns_of.setdefault(index // columns, []).append(index % columns)
    same = set(rows_of) == set(columns_of) and len(rows_of) == cut.groups
    if not same or len({len(r) for r in rows_of.values()}) != 1 or len({len(c) for c in columns_of.values()}) != 1:
        raise PlanError(f"the kept channels do not form {cut.groups} convolution group(s) of one size")
    return [(group, rows_of[group], columns_of[group]) for group in sorted(rows_of)]


def _find(modules: dict[str, nn.Module], name: str) -> nn.Module:
    if name not in modules:
        raise PlanError(f"the plan names the module {name!r}, which this model does not have")
    return modules[name]


def _plan_heads(name: str, module: nn.Module, cut: HeadCut, plan: ShrinkPlan) -> OpenAttention:
    attention = opened(module) if name else None
    if attention is None:
        raise PlanError(f"{name!r}: the plan removes attention heads, this model has a {type(module).__name__} there")
    if attention.heads != cut.heads:
        raise PlanError(f"{name}: the plan is for {cut.heads} heads, this model has {attention.heads}")
    kept = set(cut.kept)
    for side, layers in (("outputs", attention.outputs()), ("inputs", attention.inputs())):
        for layer, heads in layers.items():
            wanted = tuple(index for index, head in enumerate(heads) if head in kept)
            found = plan.layers.get(f"{name}.{layer}")
            have = tuple(range(len(heads))) if found is None else getattr(found, f"kept_{side}")
            if have != wanted:
                raise PlanError(f"{name}.{layer}: its kept {side} are not those of the heads that stay")
    return attention


def _plan_layer(name: str, module: nn.Module, cut: LayerCut) -> Callable[[], None]:
    if not is_layer(module):
        raise PlanError(f"{name}: the plan cuts a layer, this model has a {type(module).__name__} there")
    size = layer_size(module)
    if (size.outputs, size.inputs) != (cut.outputs, cut.inputs):
        raise PlanError(
            f"{name}: the plan is for {cut.outputs} outputs and {cut.inputs} inputs, "
            f"this model has {size.outputs} and {size.inputs}"
        )
    try:
        blocks = kept_blocks(size, cut)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
    columns = size.inputs // size.groups
    if any(index // columns != other // columns for index, other, _ in cut.merged):
        raise PlanError(f"{name}: channels of different convolution groups cannot be merged")
    if is_fixed_map(module):
        if cut.constants or cut.merged or cut.bias_added or cut.scales:
            raise PlanError(f"{name}: a fixed channel map takes no constants and no scales")
        return lambda: module.select(list(cut.kept_outputs), list(cut.kept_inputs))
    bias = module.bias
    if cut.bias_added and bias is not None:
        raise PlanError(f"{name}: the plan adds a bias, this model has one already")
    if cut.constants and bias is None and not cut.bias_added:
        raise PlanError(f"{name}: the plan folds constants into a bias, which this model lacks")
    return lambda: _cut_layer(module, size, cut, blocks)


def _cut_layer(
    module: nn.Module, size: LayerSize, cut: LayerCut, blocks: list[tuple[int, list[int], list[int]]]
) -> None:
    old: nn.Parameter = module.weight  # type: ignore[assignment]
    weight, shift = _fold(weight_blocks(module), size, cut)
    weight = torch.stack([weight[g][rows][:, columns] for g, rows, columns in blocks])
    module.weight = nn.Parameter(weight_from_blocks(module, weight), requires_grad=old.requires_grad)
    kept = list(cut.kept_outputs)
    bias = module.bias
    if cut.bias_added:
        bias = nn.Parameter(old.detach().new_zeros(size.outputs), requires_grad=old.requires_grad)
    if isinstance(bias, nn.Parameter):
        value = bias.detach()
        if shift is not None:
            value = (value.double() + shift).to(value.dtype)
        module.bias = nn.Parameter(value[kept].clone(), requires_grad=bias.requires_grad)
    if isinstance(module, _ConvNd):
        module.groups = cut.groups
        module.in_channels, module.out_channels = len(cut.kept_inputs), len(kept)
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = len(cut.kept_inputs), len(kept)


def _fold(weight: Tensor, size: LayerSize, cut: LayerCut) -> tuple[Tensor, Tensor | None]:
    """Scale kernels; move constant channels into the bias or another channel. Returns [G, O, I, K] and [outputs]."""
    if not cut.constants and not cut.merged and not cut.scales:
        return weight, None
    columns = size.inputs // size.groups
    folded = weight.double().clone()
    for index, value in cut.scales:
        group, column = divmod(index, columns)
        folded[group, :, column] *= value
    shift = folded.new_zeros(size.groups, size.outputs // size.groups)
    for index, value in cut.constants:
        group, column = divmod(index, columns)
        shift[group] += value * folded[group, :, column].sum(-1)
        folded[group, :, column] = 0
    for index, other, ratio in cut.merged:
        group, column = divmod(index, columns)
        folded[group, :, other % columns] += ratio * folded[group, :, column]
        folded[group, :, column] = 0
    return folded.to(weight.dtype), shift.flatten() if cut.constants else None


def _plan_channels(name: str, module: nn.Module, cut: ChannelCut) -> Callable[[], None]:
    if not is_channelwise(module):
        raise PlanError(f"{name}: the plan cuts a BatchNorm or the like, this model has a {type(module).__name__}")
    if channelwise_size(module) != cut.channels:
        raise PlanError(f"{name}: the plan is for {cut.channels} channels, this model has {channelwise_size(module)}")
    return lambda: _cut_channels(module, cut.kept)


def _cut_channels(module: nn.Module, kept: Sequence[int]) -> None:
    indices = list(kept)
    for key, parameter in module.named_parameters(recurse=False):
        cut = nn.Parameter(parameter.detach()[indices].clone(), requires_grad=parameter.requires_grad)
        setattr(module, key, cut)
    for key, buffer in module.named_buffers(recurse=False):
        if buffer.dim() == 1:  # the running statistics; num_batches_tracked is a scalar
            setattr(module, key, buffer[indices].clone())
    setattr(module, "num_parameters" if isinstance(module, nn.PReLU) else "num_features", len(indices))
