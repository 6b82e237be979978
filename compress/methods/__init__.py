"""Every method, one file each, all with the protocol of ``compress.methods.base``.

Third parties add theirs through the entry-point group ``compress.methods``: name = "package.module:Class".
"""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

from compress.methods.at_init import AtInit
from compress.methods.base import Method
from compress.methods.dpf import DPF
from compress.methods.fine_tune import FineTune
from compress.methods.frank_wolfe import FrankWolfe
from compress.methods.freezenet import FreezeNet
from compress.methods.gradual import Gradual
from compress.methods.greedy_imitation import GreedyImitation
from compress.methods.lottery_ticket import LotteryTicket
from compress.methods.one_shot import OneShot
from compress.methods.rigl import RigL
from compress.methods.set import SET
from compress.suggestion import did_you_mean

__all__ = [
    "DPF", "SET", "AtInit", "FineTune", "FrankWolfe", "FreezeNet", "Gradual", "GreedyImitation", "LotteryTicket",
    "Method", "OneShot", "RigL", "available", "create", "settings_of",
]  # fmt: skip

_OURS: tuple[type[Method], ...] = (
    OneShot,
    Gradual,
    DPF,
    AtInit,
    FreezeNet,
    SET,
    RigL,
    LotteryTicket,
    FrankWolfe,
    GreedyImitation,
    FineTune,
)


def available() -> dict[str, type[Method]]:
    """Method classes by name, ours first, then those of installed entry points.

    Raises:
        ValueError: an entry point is no method, or takes a name that is in use.
    """
    methods = {method.name: method for method in _OURS}
    for entry in entry_points(group="compress.methods"):
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Method)):
            raise ValueError(f"entry point compress.methods:{entry.name}: {entry.value} is not a Method class")
        if entry.name in methods:
            raise ValueError(f"entry point compress.methods:{entry.name}: {entry.value} takes a name that is in use")
        methods[entry.name] = loaded
    return methods


def create(name: str, **settings: Any) -> Method:
    """The method called ``name`` with the given settings.

    Raises:
        ValueError: no such method or setting (with a suggestion), or a setting out of range.
    """
    methods = available()
    if name not in methods:
        raise ValueError(f"method: there is no {name!r}{did_you_mean(name, methods)}")
    return methods[name](**settings)


def settings_of(method: type[Method]) -> list[Any]:
    """The dataclass fields that are settings, each with ``metadata["help"]``."""
    return [field for field in fields(method) if field.init]
