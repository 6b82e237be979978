"""Which attention can be opened, and opening all of a model."""

from __future__ import annotations

import copy
import logging
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from compress.attention.plain import PlainAttention
from compress.attention.protocol import OpenAttention
from compress.attention.windowed import WindowAttention

log = logging.getLogger(__name__)
_SAME = 1e-3  # in float32, where a large network may lose four digits
_SWIN = "torchvision.models.swin_transformer"


def opened(module: nn.Module) -> OpenAttention | None:
    """An attention that computes the same as `module` and whose heads can be removed; None for anything else.

    `module` is not changed, and its parameters are copied; one that is open already is returned itself.
    """
    if isinstance(module, OpenAttention):
        return module
    if any(is_parametrized(inner) for inner in module.modules()):
        return None
    kind = type(module)
    if isinstance(module, nn.MultiheadAttention) and kind is nn.MultiheadAttention:
        return PlainAttention.of(module)
    if kind.__module__ == _SWIN and kind.__name__ in ("ShiftedWindowAttention", "ShiftedWindowAttentionV2"):
        return WindowAttention.of(module)
    return None


def open_attention(model: nn.Module) -> nn.Module:
    """Replace every attention in `model` by its opened twin, in place, and return the model.

    One that is the model itself stays, and one that shares itself or a parameter with another place in the model.
    """
    places = [(name, module) for name, module in model.named_modules(remove_duplicate=False)]
    uses = Counter(id(module) for _, module in places)
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for name, module in places:
        alone = uses[id(module)] == 1 and all(owners[id(p)] == 1 for p in module.parameters())
        twin = opened(module) if name and alone else None
        if twin is not None and twin is not module:
            model.set_submodule(name, twin)
    return model


@torch.no_grad()
def opened_copy(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `model` in eval mode with its attention opened; closed where the copy then computes something else.

    Args:
        model: any module; it is not changed.
        example: an input batch, of which the first sample is used.
    """
    twin = open_attention(copy.deepcopy(model).eval())
    if not any(isinstance(module, OpenAttention) for module in twin.modules()):
        return twin
    whole = copy.deepcopy(model).eval()
    try:
        expected, found = tree_leaves(whole(example[:1].clone())), tree_leaves(twin(example[:1].clone()))
        pairs = [(a, b) for a, b in zip(expected, found, strict=True) if isinstance(a, Tensor)]
        if all(float((a - b).abs().max()) <= _SAME * float(a.abs().max()) for a, b in pairs):
            return twin
    except Exception as error:  # code that wants its own kind of attention, or a model that does not run at all
        log.debug("attention stays closed: %s", error)
    return whole


def closed_attention(model: nn.Module) -> dict[str, str]:
    """Name of an attention -> why its heads stay."""
    return {
        name: "it is attention of a kind that cannot be opened, or shared"
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
