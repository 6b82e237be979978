"""Which weights a method may touch, and why not the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from compress.checks import matches, unmatched

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class PrunableWeight:
    """One weight tensor that a method may prune.

    Attributes:
        name: name in the plain model's ``state_dict``, "layer1.0.conv1.weight".
        module: the layer that owns it.
        filter_axis: axis that counts output channels (0; 1 for transposed convolutions).
        normalised: a BatchNorm over its output channels is registered right behind the layer.
    """

    name: str
    module: nn.Module
    filter_axis: int
    normalised: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The weights a method may prune, and the reason for every convolution or linear weight left out."""

    weights: tuple[PrunableWeight, ...]
    left_out: dict[str, str]


def prunable_weights(
    model: nn.Module,
    *,
    skip_first: bool = False,
    skip_last_linear: bool = True,
    skip_depthwise: bool = False,
    exclude: tuple[str, ...] = (),
) -> Selection:
    """Weights of convolution and linear layers; biases and normalisation are never among them.

    Args:
        model: any module.
        skip_first: keep the first convolution or linear layer (in module order) dense.
        skip_last_linear: keep the last linear layer dense, as DPF does (003, section 5.1).
        skip_depthwise: keep depthwise convolutions dense.
        exclude: shell patterns of weight or module names that stay dense, "layer4.*".

    Raises:
        ValueError: nothing is left to prune, a pattern matches nothing, a layer is lazy, or a weight is NaN or
            infinite.
    """
    layers = [(name, module) for name, module in model.named_modules() if is_layer(module)]
    owners = Counter(id(tensor) for module in model.modules() for tensor in module._parameters.values())
    linears = [name for name, module in layers if isinstance(module, nn.Linear)]
    unused = set(exclude)
    normalised = _before_batchnorm(model)
    chosen, left_out = [], {}
    for position, (name, module) in enumerate(layers):
        weight_name = f"{name}.weight" if name else "weight"
        patterns = [p for p in exclude if matches(name, p)]
        unused -= set(patterns)
        reason = _reason_to_skip(module, owners)
        if patterns:
            reason = f"excluded by {patterns[0]!r}"
        elif skip_first and position == 0:
            reason = "first layer"
        elif skip_last_linear and linears and name == linears[-1]:
            reason = "last linear layer"
        elif skip_depthwise and _is_depthwise(module):
            reason = "depthwise convolution"
        if reason:
            left_out[weight_name] = reason
            continue
        if isinstance(module.weight, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"model: {weight_name} has no shape yet (lazy layer); run one batch through the model first"
            )
        if not bool(torch.isfinite(stored_weight(module)).all()):
            raise ValueError(f"model: {weight_name} holds NaN or infinite values; repair or retrain the weights")
        axis = 1 if isinstance(module, _TRANSPOSED) else 0
        chosen.append(
            PrunableWeight(name=weight_name, module=module, filter_axis=axis, normalised=id(module) in normalised)
        )
    if unused:
        raise unmatched(min(unused), [name for name, _ in layers])
    if not chosen:
        raise ValueError(
            "model: no weight is left to prune; relax exclude, skip_first or skip_last_linear "
            f"(left out: {left_out or 'nothing, the model has no convolution or linear layer'})"
        )
    return Selection(weights=tuple(chosen), left_out=left_out)


def is_layer(module: nn.Module) -> bool:
    """A convolution or linear layer, whose weight counts as prunable."""
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))


def _before_batchnorm(model: nn.Module) -> set[int]:
    """ids of the modules whose next leaf in registration order is a BatchNorm of as many channels."""
    leaves = [module for module in model.modules() if not list(module.children())]
    return {
        id(module)
        for module, following in pairwise(leaves)
        if isinstance(following, _BatchNorm)
        and following.num_features in (getattr(module, "out_channels", None), getattr(module, "out_features", None))
    }


def _is_depthwise(module: nn.Module) -> bool:
    return (
        isinstance(module, _CONVOLUTIONS)
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def stored_weight(module: nn.Module) -> Tensor:
    """The weight as the optimizer sees it: the coefficients β where the formula is attached."""
    weight = None
    if parametrize.is_parametrized(module, "weight"):
        weight = getattr(module.get_submodule("parametrizations.weight"), "original", None)
    if weight is None:  # not read before: it is computed at every access
        weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _reason_to_skip(module: nn.Module, owners: Counter[int]) -> str | None:
    weight = module._parameters.get("weight")
    if parametrize.is_parametrized(module, "weight"):
        return "already parametrized"
    if weight is None:
        return "computed from other parameters (weight_norm, torch.nn.utils.prune); make it plain first"
    if owners[id(weight)] > 1:
        return "shared with another layer"
    if not weight.is_floating_point():
        return "not a floating-point weight"
    return None
