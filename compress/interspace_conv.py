"""Convolution without leaving the interspace: filter every input once, then mix (002, Algorithm 5.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compress.bases import Basis
from compress.prunable import stored_weight
from compress.subspace import fold, parametrized_weights


class InterspaceConv2d(nn.Module):
    """A convolution in two steps: Z = F ⋆ V for every input channel, then W = Σ β Z (002, equation (5.12)).

    Equal to the spatial convolution up to rounding, in standard layers: a depthwise convolution with the n filters,
    and a 1x1 convolution whose weight [out, in · n, 1, 1] is as sparse as the coefficients. Where filters are not the
    same for all output channels (out_N), each group of these has both steps to itself (002, section 5.5.3.3).

    Args:
        module: the convolution, for its stride, padding, dilation, groups and bias.
        basis: its filters.
        coefficients: [out, in / groups, n], as the network uses them.
        name: the layer in messages.

    Raises:
        ValueError: filters that differ between output channels of a grouped convolution.
    """

    def __init__(self, module: nn.Conv2d, basis: Basis, coefficients: Tensor, *, name: str = "module") -> None:
        super().__init__()
        parts = [basis.filters] if basis.axis == 1 else list(torch.split(basis.filters, 1))
        outputs = (
            [len(coefficients)] if len(parts) == 1 else [len(c) for c in torch.split(coefficients, basis.channels)]
        )
        if len(parts) > 1 and module.groups > 1:
            raise ValueError(
                f"{name}: out_{basis.channels} bases and a convolution of {module.groups} groups have no two steps; "
                "fold it, or share by in_N, fine, medium or coarse"
            )
        self.filtering, self.mixing = nn.ModuleList(), nn.ModuleList()
        start = 0
        for filters, count in zip(parts, outputs, strict=True):
            served = Basis(filters.detach(), axis=1, channels=basis.channels).of_channels(coefficients.shape[1])
            self.filtering.append(_depthwise(module, served.repeat(module.groups, 1, 1, 1)))
            self.mixing.append(_mixing(module, coefficients, slice(start, start + count)))
            start += count

    def forward(self, inputs: Tensor) -> Tensor:
        """The output [batch, out, height, width] for inputs [batch, in, height, width]."""
        outputs = [mix(each(inputs)) for each, mix in zip(self.filtering, self.mixing, strict=True)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-3)


def to_two_step(model: nn.Module) -> nn.Module:
    """Replace every convolution with a filter basis by :class:`InterspaceConv2d` and fold the rest.

    Call it in place of :func:`compress.fold`: ``model`` is changed and returned, plain again, ready for export. Only
    a model that is itself one convolution is returned as a new module.

    Raises:
        ValueError: no layer has a filter basis, or one cannot be executed in two steps; nothing is changed then.
    """
    replacements: dict[int, InterspaceConv2d] = {}
    for name, module, formula in parametrized_weights(model):
        if isinstance(module, nn.Conv2d) and isinstance(formula.basis, Basis):
            with torch.no_grad():
                acting = formula.acting(stored_weight(module))
            replacements[id(module)] = InterspaceConv2d(
                module, formula.basis, acting, name=name.removesuffix(".weight")
            ).train(module.training)
    if not replacements:
        raise ValueError(
            "model: no layer has a filter basis; attach a method with interspace set, and do not fold first"
        )
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):  # named_children shows a module of two names once
            if id(child) in replacements:
                parent._modules[key] = replacements[id(child)]
    return replacements.get(id(model)) or fold(model)


def _depthwise(module: nn.Conv2d, filters: Tensor) -> nn.Conv2d:
    """F ⋆ V: n filters for each input channel, from ``filters`` [in, n, K, K]."""
    geometry: dict[str, Any] = {
        key: getattr(module, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    layer = nn.Conv2d(
        len(filters), filters[:, :, 0, 0].numel(), groups=len(filters), bias=False, device="meta", **geometry
    )
    layer.weight = nn.Parameter(filters.flatten(0, 1).unsqueeze(1).contiguous())
    return layer


def _mixing(module: nn.Conv2d, coefficients: Tensor, outputs: slice) -> nn.Conv2d:
    """W = Σ β Z: a 1x1 convolution with the coefficients of some output channels."""
    weight = coefficients[outputs].flatten(1)[:, :, None, None]
    layer = nn.Conv2d(weight.shape[1] * module.groups, len(weight), 1, groups=module.groups, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias[outputs].detach().clone())
    return layer
