"""What a thinned network costs, as a function of how many units every group keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.attention import OpenAttention
from compress.greedy.groups import Network
from compress.shrink.channels import Indices
from compress.shrink.layers import is_channelwise, is_fixed_map, is_layer, layer_size

Vector = NDArray[np.float64]
Widths = Sequence[int]
Cost = Literal["macs", "parameters", "size"]
COSTS: tuple[Cost, ...] = ("macs", "parameters", "size")
_Counts = tuple[Vector, float]  # channels that a unit of each group brings along, and those that always stay
_Price = dict[Cost, float]
_FREE: _Price = dict.fromkeys(COSTS, 0.0)


class Costs:
    """Exact figures from counts alone: nothing is run and nothing is cut.

    A layer's channel counts are linear in the widths w, out = A w + a and in = B w + b, and its cost is
    pixels · out · in plus per_output · out; a depthwise or grouped convolution has a fixed number of inputs per output.

    - macs: multiply-accumulates of convolution and linear layers for one sample.
    - parameters: trained numbers.
    - size: bytes of all parameters and buffers, as in the weights file.

    Args:
        model: the model at its original size.
        network: its groups; `widths` are in their order, in units.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.full = np.array([group.units for group in network.groups], dtype=np.float64)
        self._group_of = np.full(network.channels.count + 1, -1)  # the last entry is for channels of no atom
        for number, group in enumerate(network.groups):
            self._group_of[group.atoms.ravel()] = number
        channels, calls = network.channels, network.calls
        sides: list[tuple[_Counts, _Counts]] = []
        prices: list[tuple[_Price, _Price]] = []
        for name, module in model.named_modules():
            if is_layer(module):
                size = layer_size(module)
                fixed = (np.zeros(len(self.full)), size.inputs / size.groups)
                inputs = self._counts(channels.inputs[name]) if size.groups == 1 else fixed
                sides.append((self._counts(channels.outputs[name]), inputs))
                prices.append(_layer_price(module, calls.positions.get(name, 0)))
            elif is_channelwise(module):
                sides.append((self._counts(channels.through[name]), (np.zeros(len(self.full)), 1.0)))
                prices.append(_channelwise_price(module))
            elif isinstance(module, OpenAttention):
                sides.append((self._counts(channels.heads[name]), (np.zeros(len(self.full)), 1.0)))
                prices.append(_attention_price(module))
        self._out, self._in = (np.stack([pair[side][0] for pair in sides]) for side in (0, 1))
        self._out0, self._in0 = (np.array([pair[side][1] for pair in sides]) for side in (0, 1))
        self._product = {cost: np.array([price[0][cost] for price in prices]) for cost in COSTS}
        self._linear = {cost: np.array([price[1][cost] for price in prices]) for cost in COSTS}
        totals = {
            "macs": self._counted("macs", self.full),
            "parameters": float(sum(p.numel() for p in model.parameters())),
            "size": float(sum(_bytes(t) for t in (*model.parameters(), *model.buffers()))),
        }
        self._rest: dict[Cost, float] = {cost: totals[cost] - self._counted(cost, self.full) for cost in COSTS}

    def of(self, cost: Cost, widths: Widths | Vector) -> float:
        """The cost when group g keeps `widths[g]` units."""
        return self._rest[cost] + self._counted(cost, np.asarray(widths, dtype=np.float64))

    def fraction(self, cost: Cost, widths: Widths | Vector) -> float:
        """The same as a fraction of the whole network's."""
        return self.of(cost, widths) / self.of(cost, self.full)

    def savings(self, cost: Cost, widths: Widths | Vector) -> Vector:
        """[groups] the derivative of the cost by every width."""
        w = np.asarray(widths, dtype=np.float64)
        outputs, inputs = self._out @ w + self._out0, self._in @ w + self._in0
        by_output = self._product[cost] * inputs + self._linear[cost]
        return np.asarray(by_output @ self._out + (self._product[cost] * outputs) @ self._in)

    def _counted(self, cost: Cost, widths: Vector) -> float:
        outputs, inputs = self._out @ widths + self._out0, self._in @ widths + self._in0
        return float((self._product[cost] * outputs * inputs + self._linear[cost] * outputs).sum())

    def _counts(self, row: Indices) -> _Counts:
        groups = self._group_of[row]
        counts = np.bincount(groups[groups >= 0], minlength=len(self.full)) / self.full
        return counts, float((groups < 0).sum())


def _layer_price(module: nn.Module, positions: int) -> tuple[_Price, _Price]:
    """Of each output-input pair, and of each output."""
    if is_fixed_map(module):
        return _FREE, _FREE
    weight: Tensor = module.weight  # type: ignore[assignment]
    size = layer_size(module)
    kernel = weight.numel() / (size.outputs * size.inputs / size.groups)
    biases = 0 if module.bias is None else 1
    return (
        {"macs": positions * kernel, "parameters": kernel, "size": weight.element_size() * kernel},
        {"macs": 0, "parameters": biases, "size": weight.element_size() * biases},
    )


def _channelwise_price(module: nn.Module) -> tuple[_Price, _Price]:
    parameters = list(module.parameters(recurse=False))
    held = [t for t in (*parameters, *module.buffers(recurse=False)) if t.dim() == 1]
    return _FREE, {"macs": 0, "parameters": len(parameters), "size": sum(t.element_size() for t in held)}


def _attention_price(module: OpenAttention) -> tuple[_Price, _Price]:
    """Of each head, what the layers within do not hold."""
    held = [module.get_parameter(name) for name in module.axes()]
    numbers, size = (sum(measure(p) for p in held) / module.heads for measure in (Tensor.numel, _bytes))
    return _FREE, {"macs": 0, "parameters": numbers, "size": size}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
