"""Channel groups: which channels of a network can be thinned together, and which layers read them.

A *unit* is a set of atoms (`compress.shrink.channels`) that stay or go together: one channel of the layers whose
results are added or multiplied, its BatchNorm entries and depthwise filters; behind grouped convolutions a whole
convolution group. A *group* is all units that go through the same modules. Its *consumers* are the convolutions and
linear layers that mix its channels; what arrives at their inputs, after BatchNorm, activation, pooling and gates, is
the h_i of the paper, and there the scale N·a_i belongs: a positive factor does not commute with ReLU6 or Hardswish.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from compress.checks import matches, unmatched
from compress.greedy.calls import Calls, observe
from compress.shrink.channels import Channels, trace_channels
from compress.shrink.layers import is_fixed_map, is_layer, layer_size

Indices = NDArray[np.int64]
_STOCK = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelGroup:
    """N units that can be thinned.

    name: the first layer that produces them.
    atoms: [N, atoms] what goes with each unit.
    consumers: layer name -> [N, M] input channels of each unit there, M > 1 behind a flatten or grouped convolution.
    stream: whether several layers add to these channels, as to the stream of a residual network.
    """

    name: str
    atoms: Indices
    consumers: Mapping[str, Indices]
    stream: bool

    @property
    def units(self) -> int:
        """N."""
        return len(self.atoms)


@dataclass(frozen=True, kw_only=True)
class Network:
    """What thinning knows of a network: its atoms, its groups from input to output, why the rest is left out."""

    channels: Channels
    calls: Calls
    groups: tuple[ChannelGroup, ...]
    left_out: Mapping[str, str]


def find_groups(model: nn.Module, example: Tensor, *, streams: bool = False, exclude: Sequence[str] = ()) -> Network:
    """All channel groups of `model` that can be thinned, in the order in which their first consumers run.

    Args:
        model: a plain model; it is not changed.
        example: an input batch.
        streams: also the channels to which several layers add.
        exclude: patterns of names of layers whose outputs stay as they are.

    Raises:
        ValueError: the model does not run, its channels cannot be followed, or a pattern matches nothing.
    """
    layers = [name for name, module in model.named_modules() if is_layer(module)]
    for pattern in exclude:
        if not any(matches(name, pattern) for name in layers):
            raise unmatched(pattern, layers)
    calls = observe(model, example[:1])
    try:
        with torch.enable_grad():  # the graph is read off autograd's
            channels = trace_channels(copy.deepcopy(model).eval(), (example[:1].clone(),))
    except Exception as error:  # whatever the dependency graph trips over
        raise ValueError(
            f"model: its channels cannot be followed ({type(error).__name__}: {error}); prune single weights instead"
        ) from error
    found = _Search(model, channels, calls, streams=streams, exclude=exclude)
    return Network(channels=channels, calls=calls, groups=tuple(found.groups), left_out=found.left_out)


class _Search:
    def __init__(
        self, model: nn.Module, channels: Channels, calls: Calls, *, streams: bool, exclude: Sequence[str]
    ) -> None:
        self.channels, self.calls = channels, calls
        self.streams, self.exclude = streams, exclude
        self.layers = {name: module for name, module in model.named_modules() if is_layer(module)}
        self.passing = {name for name, module in self.layers.items() if _passes(module)}
        unit_of = self._units()
        self.sides = self._sides()
        families: dict[tuple[tuple[str, str], ...], list[Indices]] = {}
        for atoms in _members(unit_of):
            touched = {side for atom in atoms for side in self.sides.get(int(atom), ())}
            families.setdefault(tuple(sorted(touched)), []).append(atoms)
        self.groups: list[ChannelGroup] = []
        self.left_out: dict[str, str] = {}
        for modules, units in families.items():
            self._add(modules, units)
        self.groups.sort(key=lambda group: (min(calls.order[name] for name in group.consumers), group.stream))

    def _units(self) -> Indices:
        """[atoms] the unit of every atom: those that a grouped convolution or fixed map ties are one."""
        unit = np.arange(self.channels.count)

        def tie(atoms: Indices) -> None:
            present = np.unique(unit[atoms[atoms >= 0]])
            if len(present) > 1:
                unit[np.isin(unit, present)] = present[0]

        for name in self.passing:
            outputs, inputs, module = self.channels.outputs[name], self.channels.inputs[name], self.layers[name]
            if is_fixed_map(module):
                source = np.asarray(module.source)
                for index in np.flatnonzero(source >= 0):
                    tie(np.array([outputs[index], inputs[source[index]]]))
            elif outputs is not inputs:
                groups = layer_size(module).groups
                for pair in zip(outputs.reshape(groups, -1), inputs.reshape(groups, -1), strict=True):
                    tie(np.concatenate(pair))
        return unit

    def _sides(self) -> dict[int, set[tuple[str, str]]]:
        """Atom -> (module, side) that it touches."""
        sides: dict[int, set[tuple[str, str]]] = {}
        channels = self.channels
        for side, rows in (("out", channels.outputs), ("in", channels.inputs), ("through", channels.through)):
            for name, row in rows.items():
                for atom in row[row >= 0]:
                    sides.setdefault(int(atom), set()).add((name, side))
        return sides

    def _add(self, modules: tuple[tuple[str, str], ...], units: list[Indices]) -> None:
        producers = [name for name, side in modules if side == "out" and name not in self.passing]
        producers.sort(key=lambda name: self.calls.order.get(name, len(self.calls.order)))
        if not producers:
            return
        name = producers[0]
        if name in self.left_out or any(group.name == name for group in self.groups):
            name += f" ({len(units)} channels)"
        consumers = [n for n, side in modules if side == "in" and n not in self.passing]
        stream = any(int(atom) in self.channels.summed for atoms in units for atom in atoms)
        reason = self._reason(producers, consumers, modules, units, stream=stream)
        if not reason:
            columns = {consumer: self._columns(consumer, units) for consumer in consumers}
            if any(rows is None for rows in columns.values()) or len({len(atoms) for atoms in units}) > 1:
                reason = "its channels reach a layer in unequal numbers"
        if reason:
            self.left_out[name] = reason
            return
        self.groups.append(
            ChannelGroup(
                name=name,
                atoms=np.stack(units),
                consumers={consumer: rows for consumer, rows in columns.items() if rows is not None},
                stream=stream,
            )
        )

    def _reason(
        self,
        producers: list[str],
        consumers: list[str],
        modules: tuple[tuple[str, str], ...],
        units: list[Indices],
        *,
        stream: bool,
    ) -> str:
        """Why the units must stay as they are, or nothing."""
        locked = [self.channels.locked[int(a)] for atoms in units for a in atoms if int(a) in self.channels.locked]
        if locked:
            return locked[0]
        if len(units) < 2:
            return "it has one channel, or one convolution group"
        for producer in producers:
            if any(matches(producer, pattern) for pattern in self.exclude):
                return "excluded"
        if stream and not self.streams:
            return "several layers add to these channels; streams=True thins them too"
        if not consumers:
            return "no layer reads its channels"
        for name, _ in modules:
            count = self.calls.counts.get(name, 0)
            if name in self.layers and count != 1:
                return f"{name} is called {count} times in one forward" if count else f"{name} is never called"
        for name in consumers:
            module = self.layers[name]
            if isinstance(module, _ConvTransposeNd) or type(module).forward not in _STOCK:
                return f"{name}, which reads it, is a {type(module).__name__}"
        return ""

    def _columns(self, consumer: str, units: list[Indices]) -> Indices | None:
        row = self.channels.inputs[consumer]
        columns = [np.flatnonzero(np.isin(row, atoms)) for atoms in units]
        if len({len(picked) for picked in columns}) > 1:
            return None
        return np.stack(columns)


def _passes(module: nn.Module) -> bool:
    """Whether channels go through the layer in step: depthwise, grouped, a fixed map."""
    return is_fixed_map(module) or layer_size(module).groups > 1


def _members(unit_of: Indices) -> list[Indices]:
    order = np.argsort(unit_of, kind="stable")
    starts = np.flatnonzero(np.diff(unit_of[order], prepend=-1))
    parts = [atoms for atoms in np.split(order, starts[1:]) if len(atoms)]
    return sorted(parts, key=lambda atoms: int(atoms[0]))
