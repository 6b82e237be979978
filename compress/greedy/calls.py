"""Which layers a forward pass calls, in which order, how often, and on how many positions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from compress.shrink.layers import is_channelwise, is_layer, layer_size


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What one forward pass does.

    order: layer name -> place among all calls of layers, of the first one.
    counts: layer name -> calls.
    positions: layer name -> how often a sample meets each weight, summed over calls: at every output position (pixel,
        token), or at every input position of a transposed convolution.
    """

    order: Mapping[str, int]
    counts: Mapping[str, int]
    positions: Mapping[str, int]


def observe(model: nn.Module, example: Tensor) -> Calls:
    """Run a copy of `model` in eval mode on `example` and watch its layers.

    Raises:
        ValueError: it does not run, or gives a layer its input as a keyword, where gates and moments do not look.
    """
    order: dict[str, int] = {}
    counts: dict[str, int] = {}
    positions: dict[str, int] = {}
    by_keyword: list[str] = []
    watched = copy.deepcopy(model).eval()

    def watch(name: str, module: nn.Module) -> None:
        transposed = isinstance(module, _ConvTransposeNd)

        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            order.setdefault(name, len(order))
            counts[name] = counts.get(name, 0) + 1
            if is_layer(module) and not args:
                by_keyword.append(name)
            elif is_layer(module):
                size = layer_size(module)
                numbers = args[0].numel() // size.inputs if transposed else output.numel() // size.outputs
                positions[name] = positions.get(name, 0) + numbers // len(example)

        module.register_forward_hook(hook)

    for name, module in watched.named_modules():
        if is_layer(module) or is_channelwise(module):
            watch(name, module)
    try:
        with torch.no_grad():
            watched(example.clone())
    except Exception as error:
        shape = list(example.shape[1:])
        raise ValueError(f"batches: the model does not run on inputs of shape {shape}: {one_line(error)}") from error
    if by_keyword:
        raise ValueError(f"model: {by_keyword[0]} takes its input as a keyword; call it with its input first")
    return Calls(order=order, counts=counts, positions=positions)


def one_line(error: Exception) -> str:
    """What it says, for the end of a sentence."""
    return " ".join(str(error).split()) or type(error).__name__
