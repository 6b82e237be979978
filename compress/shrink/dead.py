"""Which atoms are dead: nothing that the model returns depends on them. Pure algebra on zero patterns.

An atom is dead when every layer that reads it ignores it, that is when all weights of that input channel are zero,
or stand in rows that are dead themselves, or can be folded because the channel carries a constant c:
c = 0 always, c != 0 into the bias where there is no zero padding, and under zero padding into another constant
channel of the layer (its representative), whose border effect is the same up to the factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compress.shrink.channels import Channels, Indices
from compress.shrink.constants import Constants
from compress.shrink.layers import LayerSize, has_border, is_fixed_map, is_layer, layer_size, weight_blocks

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer as a reader of channels.

    nonzero: [G, O, I] a weight of this kernel is not zero.
    constants: [inputs] what each input channel carries, NaN where it varies.
    ignorable: [inputs] a constant that this layer can do without.
    representative: [inputs] the channel of the same group that takes over a padded constant, else -1.
    """

    size: LayerSize
    nonzero: Flags
    constants: NDArray[np.float64]
    ignorable: Flags
    representative: Indices

    def reads(self, alive: Flags) -> Flags:
        """[inputs] whether the layer needs the channel when only the output channels `alive` matter."""
        raw = self.raw_reads(alive)
        needed = raw & ~self.ignorable & (self.representative < 0)
        needed[self.representative[raw & (self.representative >= 0)]] = True
        return needed

    def raw_reads(self, alive: Flags) -> Flags:
        """The same by the weights alone."""
        rows = alive.reshape(self.size.groups, -1, 1)
        return (self.nonzero & rows).any(axis=1).reshape(-1)


def make_readers(model: nn.Module, constants: Constants) -> dict[str, Reader]:
    """Layer name -> reader, for every layer of the model."""
    return {
        name: _make_reader(module, constants.get(name)) for name, module in model.named_modules() if is_layer(module)
    }


def _make_reader(module: nn.Module, constants: NDArray[np.float64] | None) -> Reader:
    size = layer_size(module)
    values = np.full(size.inputs, np.nan) if constants is None else constants
    ignorable = values == 0
    representative = np.full(size.inputs, -1, dtype=np.int64)
    shifted = np.isfinite(values) & (values != 0)
    if not is_fixed_map(module):
        if not has_border(module):
            ignorable |= shifted
        else:
            columns = size.inputs // size.groups
            for start in range(0, size.inputs, columns):
                members = start + np.flatnonzero(shifted[start : start + columns])
                if len(members) > 1:
                    representative[members] = members[np.argmax(np.abs(values[members]))]
    return Reader(
        size=size,
        nonzero=(weight_blocks(module) != 0).any(-1).cpu().numpy(),
        constants=values,
        ignorable=ignorable,
        representative=representative,
    )


def find_dead(channels: Channels, readers: dict[str, Reader], *, given_up: frozenset[int]) -> Flags:
    """[atoms] which are dead: the largest set that is consistent, found by removing readers until nothing changes.

    Args:
        given_up: parts (`Channels.part`) that did not verify; their atoms count as alive.
    """
    alive_anyway = np.isin(channels.part, list(given_up))
    alive_anyway[list(channels.locked)] = True
    read_at_all = np.zeros(channels.count, dtype=bool)
    reading = {name: reader for name, reader in readers.items() if not is_through(channels, name)}
    for name in reading:
        row = channels.inputs[name]
        read_at_all[row[row >= 0]] = True
    candidate = read_at_all & ~alive_anyway
    dead = np.zeros(channels.count, dtype=bool)
    while True:
        needed = ~candidate
        for name, reader in reading.items():
            row = channels.inputs[name]
            reads = reader.reads(alive_rows(channels, name, dead)) & (row >= 0)
            needed[row[reads]] = True
        if (~needed == dead).all():
            return dead
        dead = ~needed


def is_through(channels: Channels, name: str) -> bool:
    """Whether the layer is depthwise: its input channels are its output channels, it passes atoms on."""
    return channels.inputs[name] is channels.outputs[name]


def alive_rows(channels: Channels, name: str, dead: Flags) -> Flags:
    """[outputs] of a layer that are not dead."""
    row = channels.outputs[name]
    return ~(dead[row] & (row >= 0))


def settle_kept(
    channels: Channels, readers: dict[str, Reader], dead: Flags, *, round_to: int
) -> tuple[Flags, dict[int, str]]:
    """Revive dead atoms until every layer has a possible shape. Returns [atoms] removed, and why a dead one stays.

    A layer keeps at least one channel on each side; convolution groups keep equally many, or go as a whole; the
    kept outputs of every layer are a multiple of `round_to` where it has that many. The lowest indices are revived.
    """
    removed = dead.copy()
    reasons: dict[int, str] = {}

    def revive(row: Indices, count: int, reason: str) -> bool:
        chosen = row[(row >= 0) & removed[row]]
        chosen = chosen[np.sort(np.unique(chosen, return_index=True)[1])][: max(count, 0)]
        removed[chosen] = False
        reasons.update((int(atom), reason) for atom in chosen)
        return len(chosen) > 0

    def kept(row: Indices) -> int:
        return int((~removed[row] | (row < 0)).sum())

    changed = True
    while changed:
        changed = False
        for row in [*channels.outputs.values(), *channels.inputs.values(), *channels.through.values()]:
            changed |= kept(row) == 0 and revive(row, 1, "a layer needs at least one channel")
        for name, reader in readers.items():
            outputs, inputs, groups = channels.outputs[name], channels.inputs[name], reader.size.groups
            changed |= revive(outputs, -kept(outputs) % round_to, f"{name} keeps a multiple of {round_to} channels")
            if groups == 1 or is_through(channels, name):
                continue
            pairs = list(zip(outputs.reshape(groups, -1), inputs.reshape(groups, -1), strict=True))
            whole = [pair for pair in pairs if kept(pair[0]) or kept(pair[1])]
            most = max(kept(o) for o, _ in whole), max(kept(i) for _, i in whole)
            for pair in whole:
                for row, target in zip(pair, most, strict=True):
                    reason = f"the convolution groups of {name} must stay equal"
                    changed |= revive(row, max(target, 1) - kept(row), reason)
    return removed, reasons
