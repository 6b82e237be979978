"""The shrink plan: which channels of which module stay, as a plain data object that is JSON on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Any, TypeVar

SCHEMA = 1
_LARGEST = 2**31 - 1
_Cut = TypeVar("_Cut", "LayerCut", "ChannelCut", "HeadCut")


class PlanError(ValueError):
    """A plan that contradicts itself, or that belongs to another model."""


@dataclass(frozen=True, kw_only=True)
class LayerCut:
    """What happens to one convolution, linear layer or fixed map. All indices count channels before the cut.

    outputs, inputs: channel counts before. kept_outputs, kept_inputs: ascending indices of the channels that stay.
    groups: convolution groups afterwards. bias_added: a bias is created (it had none).
    constants: (i, c): input channel i carried the constant c; c times the kernel's sum goes into the bias.
    merged: (i, r, q): input channel i carried q times the constant of channel r; q times its kernel is added to
    that of r (exact under zero padding too, where a bias is not). In both cases kernel i is zero afterwards.
    scales: (i, s): kernel i, of an input channel that stays, is multiplied by s > 0.
    """

    outputs: int
    inputs: int
    kept_outputs: tuple[int, ...]
    kept_inputs: tuple[int, ...]
    groups: int = 1
    bias_added: bool = False
    constants: tuple[tuple[int, float], ...] = ()
    merged: tuple[tuple[int, int, float], ...] = ()
    scales: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _check_count("outputs", self.outputs)
        _check_count("inputs", self.inputs)
        _check_kept("kept_outputs", self.kept_outputs, self.outputs)
        _check_kept("kept_inputs", self.kept_inputs, self.inputs)
        _check_count("groups", self.groups)
        if len(self.kept_outputs) % self.groups or len(self.kept_inputs) % self.groups:
            raise PlanError(f"groups ({self.groups}) must divide the number of kept outputs and of kept inputs")
        if not isinstance(self.bias_added, bool):
            raise PlanError("bias_added must be true or false")
        folded = [_check_index(row[0], self.inputs) for row in (*self.constants, *self.merged)]
        if len(set(folded)) != len(folded):
            raise PlanError("an input channel may be folded only once, by constants or by merged")
        for index, representative, _ in self.merged:
            if _check_index(representative, self.inputs) in set(folded):
                raise PlanError(f"merged: channel {index} goes into {representative}, which is folded itself")
        for value in [row[-1] for row in (*self.constants, *self.merged, *self.scales)]:
            if not isinstance(value, float) or not math.isfinite(value):
                raise PlanError(f"constants, ratios and scales must be finite numbers, got {value!r}")
        scaled = [_check_index(row[0], self.inputs) for row in self.scales]
        if len(set(scaled)) != len(scaled) or not set(scaled) <= set(self.kept_inputs) - set(folded):
            raise PlanError("scales: each must name another kept input channel, none that is folded")
        if any(value <= 0 for _, value in self.scales):
            raise PlanError("scales must be above 0; a channel scaled by 0 is one that is not kept")


@dataclass(frozen=True, kw_only=True)
class ChannelCut:
    """What happens to a module with one number a channel (BatchNorm, InstanceNorm, PReLU)."""

    channels: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_count("channels", self.channels)
        _check_kept("kept", self.kept, self.channels)


@dataclass(frozen=True, kw_only=True)
class HeadCut:
    """What happens to an attention: it is opened (`compress.attention`), and only the heads `kept` of `heads` stay.

    Its inner layers have cuts of their own, under the names that they have once it is open.
    """

    heads: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_count("heads", self.heads)
        _check_kept("kept", self.kept, self.heads)


@dataclass(frozen=True, kw_only=True)
class ShrinkPlan:
    """Everything needed to cut a model of the original shape: module name -> cut.

    Modules without an entry stay as they are. `notes` says in sentences what could have gone and why it stayed.
    `difference` is the largest relative difference between the outputs of the masked and the shrunk model that
    was measured when the plan was made.
    """

    layers: Mapping[str, LayerCut] = field(default_factory=dict)
    channels: Mapping[str, ChannelCut] = field(default_factory=dict)
    heads: Mapping[str, HeadCut] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    difference: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "channels", MappingProxyType(dict(self.channels)))
        object.__setattr__(self, "heads", MappingProxyType(dict(self.heads)))
        kinds = {"layer": self.layers, "channels": self.channels, "heads": self.heads}
        for (first, one), (second, other) in combinations(kinds.items(), 2):
            if both := set(one) & set(other):
                raise PlanError(f"{min(both)!r} stands in the plan twice, as {first} and as {second}")

    @property
    def removed_outputs(self) -> int:
        """Output channels of layers that the plan removes, over all layers."""
        return sum(cut.outputs - len(cut.kept_outputs) for cut in self.layers.values())

    def to_document(self) -> dict[str, Any]:
        """The plan as the objects that JSON knows."""
        return {
            "schema": SCHEMA,
            "layers": {name: vars(cut) for name, cut in self.layers.items()},
            "channels": {name: vars(cut) for name, cut in self.channels.items()},
            "heads": {name: vars(cut) for name, cut in self.heads.items()},
            "notes": list(self.notes),
            "difference": self.difference,
        }

    def to_json(self) -> str:
        """The plan as one JSON document."""
        return json.dumps(self.to_document(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ShrinkPlan:
        """Read a plan. Nothing in `text` is trusted.

        Raises:
            PlanError: (a ValueError) not JSON, another schema, unknown or missing keys, wrong types, indices out
                of range, counts that do not fit one another.
        """
        return cls.from_document(parse_json(text))

    @classmethod
    def from_document(cls, document: Any) -> ShrinkPlan:
        """Read a plan from parsed JSON, with the same distrust and the same errors as `from_json`."""
        needed = {"schema", "layers", "channels", "notes", "difference"}
        rows = _check_keys(document, "the plan", needed, {"heads"})
        if type(rows["schema"]) is not int or rows["schema"] != SCHEMA:
            raise PlanError(f"shrink plan schema {rows['schema']!r} is not known here, this version reads {SCHEMA}")
        if not isinstance(rows["notes"], list) or not all(isinstance(note, str) for note in rows["notes"]):
            raise PlanError("notes must be a list of strings")
        difference = _as_float(rows["difference"])
        if not isinstance(difference, float) or not math.isfinite(difference):
            raise PlanError("difference must be a finite number")
        return cls(
            layers={name: _layer_cut(name, row) for name, row in _check_dict(rows["layers"], "layers").items()},
            channels={name: _channel_cut(name, row) for name, row in _check_dict(rows["channels"], "channels").items()},
            heads={name: _head_cut(name, row) for name, row in _check_dict(rows.get("heads", {}), "heads").items()},
            notes=tuple(rows["notes"]),
            difference=difference,
        )


def parse_json(text: str) -> Any:
    """The objects in a JSON text.

    Raises:
        PlanError: it is no JSON, nested too deeply, or holds NaN or Infinity.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except PlanError:
        raise
    except (ValueError, RecursionError, TypeError) as error:
        raise PlanError(f"the shrink plan is not valid JSON: {error}") from None


def _layer_cut(name: str, row: Any) -> LayerCut:
    optional = {"groups", "bias_added", "constants", "merged", "scales"}
    row = dict(_check_keys(row, name, {"outputs", "inputs", "kept_outputs", "kept_inputs"}, optional))
    row["kept_outputs"] = _check_list(row["kept_outputs"], name)
    row["kept_inputs"] = _check_list(row["kept_inputs"], name)
    for key, width in (("constants", 2), ("merged", 3), ("scales", 2)):
        entries = _check_list(row.get(key, []), name)
        if any(not isinstance(entry, list) or len(entry) != width for entry in entries):
            raise PlanError(f"{name}: every entry of {key} must be a list of {width} numbers")
        row[key] = tuple((*entry[:-1], _as_float(entry[-1])) for entry in entries)
    return _named(name, LayerCut, row)


def _channel_cut(name: str, row: Any) -> ChannelCut:
    row = dict(_check_keys(row, name, {"channels", "kept"}, set()))
    row["kept"] = _check_list(row["kept"], name)
    return _named(name, ChannelCut, row)


def _head_cut(name: str, row: Any) -> HeadCut:
    row = dict(_check_keys(row, name, {"heads", "kept"}, set()))
    row["kept"] = _check_list(row["kept"], name)
    return _named(name, HeadCut, row)


def _named(name: str, make: type[_Cut], row: dict[str, Any]) -> _Cut:
    try:
        return make(**row)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def _check_dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(f"{name} must be an object")
    return value


def _check_keys(value: Any, name: str, needed: set[str], optional: set[str]) -> dict[str, Any]:
    row = _check_dict(value, name)
    if missing := needed - set(row):
        raise PlanError(f"{name} lacks the key {min(missing)!r}")
    if unknown := set(row) - needed - optional:
        raise PlanError(f"{name} has the unknown key {min(unknown)!r}")
    return row


def _check_list(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise PlanError(f"{name}: indices must be a list")
    return tuple(value)


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise PlanError(f"{name} must be a whole number from 1 to {_LARGEST}, got {value!r}")


def _check_index(value: Any, size: int) -> int:
    if type(value) is not int or not 0 <= value < size:
        raise PlanError(f"channel index {value!r} is not a whole number from 0 to {size - 1}")
    return value


def _check_kept(name: str, kept: tuple[int, ...], size: int) -> None:
    if not kept:
        raise PlanError(f"{name} must keep at least one channel")
    previous = -1
    for value in kept:
        if _check_index(value, size) <= previous:
            raise PlanError(f"{name} must be strictly ascending")
        previous = value


def _refuse_constant(name: str) -> float:
    raise PlanError(f"the shrink plan holds {name}, only finite numbers are allowed")
