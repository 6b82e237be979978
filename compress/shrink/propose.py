"""From dead atoms to a plan: the cut of every layer, and sentences about what could have gone and stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from compress.shrink.channels import Channels, Indices
from compress.shrink.dead import Flags, Reader, alive_rows, find_dead, is_through, settle_kept
from compress.shrink.plan import ChannelCut, HeadCut, LayerCut, ShrinkPlan


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is known of a model before a plan is made of it."""

    model: nn.Module
    channels: Channels
    readers: dict[str, Reader]
    round_to: int

    def plan(self, given_up: frozenset[int]) -> ShrinkPlan:
        """The plan that removes every dead channel but those of the parts `given_up`."""
        channels = self.channels
        dead = find_dead(channels, self.readers, given_up=given_up)
        removed, _ = settle_kept(channels, self.readers, dead, round_to=self.round_to)
        layers: dict[str, LayerCut] = {}
        for name, reader in self.readers.items():
            cut = _layer_cut(self.model.get_submodule(name), channels, name, reader, dead, removed)
            whole = len(cut.kept_outputs) == cut.outputs and len(cut.kept_inputs) == cut.inputs
            if not whole or cut.constants or cut.merged:
                layers[name] = cut
        cuts = {name: ChannelCut(channels=len(row), kept=_kept(row, removed)) for name, row in channels.through.items()}
        return ShrinkPlan(
            layers=layers,
            channels={name: cut for name, cut in cuts.items() if len(cut.kept) < cut.channels},
            heads=head_cuts(channels, removed, layers),
        )

    def notes(self, given_up: frozenset[int]) -> tuple[str, ...]:
        """One sentence per layer and kind of reason: filters that are all zero, or dead, and stay."""
        channels = self.channels
        dead = find_dead(channels, self.readers, given_up=given_up)
        _, revived = settle_kept(channels, self.readers, dead, round_to=self.round_to)
        wanted = find_dead(channels, self.readers, given_up=frozenset())
        blockers = self._blockers(dead)
        counts: Counter[tuple[str, str]] = Counter()
        for name, reader in self.readers.items():
            zero = ~reader.nonzero.any(axis=2).reshape(-1)
            for atom, is_zero in zip(channels.outputs[name].tolist(), zero.tolist(), strict=True):
                if atom in revived:
                    counts[name, f"dead channels stay: {revived[atom]}"] += 1
                elif atom >= 0 and wanted[atom] and int(channels.part[atom]) in given_up:
                    counts[name, "dead channels stay: without them the outputs were not the same"] += 1
                elif is_zero and atom < 0:
                    counts[name, "zero filters stay: the dependency graph does not reach them"] += 1
                elif is_zero and atom in channels.locked:
                    counts[name, f"zero filters stay: {channels.locked[atom]}"] += 1
                elif is_zero and not dead[atom] and atom in blockers:
                    counts[name, f"zero filters stay: {blockers[atom]}"] += 1
        return tuple(_sentence(name, count, reason) for (name, reason), count in counts.items())

    def _blockers(self, dead: Flags) -> dict[int, str]:
        """Atom -> why a layer needs it."""
        found: dict[int, str] = {}
        for name, reader in self.readers.items():
            row = self.channels.inputs[name]
            needed = reader.reads(alive_rows(self.channels, name, dead)) & (row >= 0)
            for index in map(int, np.flatnonzero(needed)):
                constant = bool(np.isfinite(reader.constants[index]))
                why = "a constant arrives behind them that zero padding keeps from being folded into a bias"
                found.setdefault(int(row[index]), why if constant else "what arrives behind them is not constant")
        return found


def head_cuts(channels: Channels, removed: Flags, layers: Mapping[str, LayerCut]) -> dict[str, HeadCut]:
    """The cuts of all attention whose inner layers are cut."""
    return {
        name: HeadCut(heads=len(row), kept=_kept(row, removed))
        for name, row in channels.heads.items()
        if any(layer.startswith(f"{name}.") for layer in layers)
    }


def _layer_cut(
    module: nn.Module, channels: Channels, name: str, reader: Reader, dead: Flags, removed: Flags
) -> LayerCut:
    outputs, inputs = channels.outputs[name], channels.inputs[name]
    kept_outputs, kept_inputs = _kept(outputs, removed), _kept(inputs, removed)
    constants: list[tuple[int, float]] = []
    merged: list[tuple[int, int, float]] = []
    if not is_through(channels, name):
        folded = reader.raw_reads(alive_rows(channels, name, dead)) & dead[inputs] & (inputs >= 0)
        for index in map(int, np.flatnonzero(folded & (reader.constants != 0))):
            value, other = float(reader.constants[index]), int(reader.representative[index])
            if other < 0:
                constants.append((index, value))
            else:
                merged.append((index, other, value / float(reader.constants[other])))
    rows = reader.size.outputs // reader.size.groups
    return LayerCut(
        outputs=reader.size.outputs,
        inputs=reader.size.inputs,
        kept_outputs=kept_outputs,
        kept_inputs=kept_inputs,
        groups=len({index // rows for index in kept_outputs}),
        bias_added=bool(constants) and module.bias is None,
        constants=tuple(constants),
        merged=tuple(merged),
    )


def _kept(row: Indices, removed: Flags) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(~(removed[row] & (row >= 0)))))


def _sentence(name: str, count: int, reason: str) -> str:
    if count == 1:
        reason = reason.replace("filters stay", "filter stays").replace("channels stay", "channel stays")
    return f"{name}: {count} {reason}"
