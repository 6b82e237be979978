"""The protocol that every method follows.

    pruner = DPF(sparsity=0.9, ramp_steps=4000)
    pruner.attach(model, batches)                    # before the optimizer is built
    for x, y in loader: ...; optimizer.step(); pruner.step()
    pruner.finish(); fold(model)

A method is a frozen dataclass of settings. Most put masks on weights (`compress.methods.masked`); one that really
removes channels does so on attach and leaves a shrink plan in its outcome, and training fine-tunes what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from torch import nn
from torch.optim import Optimizer

from compress.checks import require
from compress.dynamics import MaskRecord
from compress.greedy.latency import Stopwatch
from compress.methods.outcome import Batches, Outcome
from compress.suggestion import did_you_mean


class EpochSchedule(Protocol):
    """A learning-rate schedule that moves after every epoch, by its loss."""

    def step(self, loss: float) -> object:
        """Take the mean loss of the epoch that has ended."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""


def setting(default: Any, text: str) -> Any:
    """A dataclass field with the help text that ``compress-then-export methods`` prints."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings that refuse what they do not know, and the protocol."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    shared_keys: ClassVar[tuple[str, ...]] = ()
    """What ``state_dict`` holds beside that of all, for every method of a kind."""
    state_keys: ClassVar[tuple[str, ...]] = ()
    """The same, for this method alone."""
    decides: ClassVar[tuple[str, ...]] = ()
    """Keys of a training, such as optimizer, that the method decides itself (:meth:`own_optimizer`)."""
    cuts: ClassVar[bool] = True
    """False where the method only trains, and something else cuts."""

    def __new__(cls, *values: object, **settings: Any) -> Self:
        """Refuse an unknown setting, with a suggestion; ``__init__`` would say it in Python's words."""
        if values:
            raise ValueError(f"{cls.name}: {values[0]!r} has no name; settings are keyword-only, such as sparsity=0.9")
        known = [field.name for field in fields(cls) if field.init]
        for key in settings:
            if key not in known:
                raise ValueError(f"{key}: {cls.name} has no such setting{did_you_mean(key, known)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for switch in fields(self):
            if isinstance(switch.default, bool):
                value = getattr(self, switch.name)
                require(isinstance(value, bool), switch.name, value, "true or false")
        self.validate()

    # -- what a method answers ------------------------------------------------------------------------

    @abstractmethod
    def validate(self) -> None:
        """Check the method's own settings; raise ValueError naming the wrong one."""

    @abstractmethod
    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """The same settings with every step count that was left open filled in.

        Args:
            total_steps: optimizer steps of the training that the method will see.
            lr_drops: steps at which the learning rate falls, ascending; empty for smooth schedules.
        """

    @property
    def trainings(self) -> int:
        """Whole trainings that the method wants, one after the other, each with a fresh optimizer and schedule."""
        return 1

    @property
    def rewinds_next(self) -> bool:
        """Whether the next :meth:`step` takes weights back to earlier values; measure what was trained before it."""
        return False

    def own_optimizer(self, *, fresh: bool = True) -> Optimizer | None:
        """The optimizer that the method trains with; None where any will do.

        Args:
            fresh: whether training begins; False where it goes on and the state of what began is about to be loaded.
        """
        return None

    def own_schedule(self, optimizer: Optimizer, epochs: int) -> EpochSchedule | None:
        """The learning-rate schedule that goes with :meth:`own_optimizer`; None where any will do."""
        return None

    # -- the protocol ---------------------------------------------------------------------------------

    @abstractmethod
    def attach(self, model: nn.Module, batches: Batches = ()) -> None:
        """Begin on ``model``, in place; call it before the optimizer is built.

        Args:
            model: a plain model.
            batches: (inputs, targets) pairs for methods that look at data; magnitude needs none.

        Raises:
            ValueError: the model, the data or the settings do not fit; the model is as it was.
        """

    def rehearse(self, model: nn.Module, batches: Batches = ()) -> Outcome:
        """Find out on a throw-away copy of the model whether ``attach`` would work; by default, do it."""
        self.attach(model, batches)
        return self.run

    def kept_in(self, folder: Path) -> Self:
        """The same method, which keeps there what takes long on attach, so that a stopped run goes on; or itself."""
        return self

    def timed_by(self, stopwatch: Stopwatch) -> Self:
        """The same method, which measures latency by this; or itself, where it measures none."""
        return self

    @abstractmethod
    def step(self, optimizer: Optimizer | None = None) -> None:
        """Tell the method that the optimizer made one step.

        Args:
            optimizer: the one that made it, for methods that start some weights with fresh momentum; without it
                they leave what momentum there is, which fades while a weight is masked.
        """

    @abstractmethod
    def finish(self) -> None:
        """Bring the model to its final budget; call it once, before fold."""

    @property
    @abstractmethod
    def run(self) -> Outcome:
        """What this run has come to.

        Raises:
            ValueError: the method is not attached.
        """

    def unattached(self) -> ValueError:
        """The error for what needs a model before there is one."""
        return ValueError(f"{self.name}: not attached to a model; call attach(model, batches) first")

    @property
    def history(self) -> list[MaskRecord]:
        """One record a mask update; none without masks."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that a resumed run needs beside the model's and optimizer's ``state_dict``."""
        run = self.run
        return {
            "method": self.name,
            "settings": self._described(),
            "step": run.step,
            "finished": run.finished,
            "findings": dict(run.findings),
            "warnings": list(run.warnings),
        }

    def _described(self) -> dict[str, str]:
        return {field.name: repr(getattr(self, field.name)) for field in fields(self) if field.init}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; call it after ``attach`` and the model's load_state_dict.

        Raises:
            ValueError: the state belongs to another method, other settings or another model.
        """
        if state.get("method") != self.name:
            raise ValueError(f"state: it was saved by {state.get('method')!r}, this is {self.name!r}")
        missing = {"step", "finished", "settings", *self.shared_keys, *self.state_keys} - state.keys()
        if missing:
            raise ValueError(f"state: {sorted(missing)[0]!r} is missing; it is damaged or of another version")
        defaults = {field.name: repr(field.default) for field in fields(self)}  # of settings younger than the state
        for key, value in self._described().items():
            saved = state["settings"].get(key, defaults[key])
            if saved != value:
                raise ValueError(f"state: it was saved with {key}={saved}, this method has {value}")
        run = self.run
        run.step, run.finished = int(state["step"]), bool(state["finished"])
        run.findings = dict(state.get("findings", {}))
        run.warnings = list(state.get("warnings", ()))
