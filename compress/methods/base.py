"""The protocol that every method follows.

    pruner = DPF(sparsity=0.9, ramp_steps=4000)
    pruner.attach(model, batches)                    # before the optimizer is built
    for x, y in loader: ...; optimizer.step(); pruner.step()
    pruner.finish(); fold(model)

A method is a frozen dataclass of settings that says which masks hold after t optimizer steps and which at
the end. Everything else is here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.bases import Initialisation
from compress.checks import require
from compress.dynamics import MaskDynamics, MaskRecord
from compress.interspace import Interspace
from compress.methods.run import Batches, Run
from compress.prunable import prunable_weights, stored_weight
from compress.sharing import NAMES as SHARINGS
from compress.subspace import Formula, attach, detach, parametrized_weights, spatial_weights
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
    """A policy on masks: the settings that all methods share, and the protocol."""

    skip_first: bool = setting(False, "keep the first convolution or linear layer dense")
    skip_last_linear: bool = setting(True, "keep the last linear layer dense")
    skip_depthwise: bool = setting(False, "keep depthwise convolutions dense")
    exclude: tuple[str, ...] = setting((), "patterns of layer names that stay dense, such as layer4.*")
    interspace: str | None = setting(None, f"prune coefficients of trained filter bases, shared {SHARINGS}")
    basis: Initialisation = setting(
        "standard", "how filter bases begin: standard, onb, random, or fitted to the weights"
    )
    basis_size: int | None = setting(None, "filters in a basis; default as many as a kernel has entries")
    basis_seed: int = setting(0, "seed of random filter bases")
    large_kernels: bool = setting(False, "give kernels larger than 5x5 a filter basis too")

    _run: Run | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    straight_through: ClassVar[bool] = False
    state_keys: ClassVar[tuple[str, ...]] = ()
    """What the method's own ``state_dict`` holds beside that of all."""
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
        if isinstance(self.exclude, str) or not all(isinstance(p, str) for p in self.exclude):
            raise ValueError(f"exclude: {self.exclude!r} is not a list of patterns; write ['layer4.*']")
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if self.interspace is None:
            for key, default in (
                ("basis", "standard"),
                ("basis_size", None),
                ("basis_seed", 0),
                ("large_kernels", False),
            ):
                value = getattr(self, key)
                require(value == default, key, value, "of use without a filter basis; set interspace, such as fine")
        _ = self.filter_bases
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

    @abstractmethod
    def first_mask(self, coefficients: Tensor, filter_axis: int) -> Tensor:
        """An all-ones bool mask, broadcastable to the coefficients of one weight."""

    @abstractmethod
    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """Masks that hold after ``step`` optimizer steps (0: on attach), or None to keep those there are."""

    @abstractmethod
    def final_masks(self, run: Run) -> list[Tensor] | None:
        """Masks of the exact final budget, or None when those there are meet it."""

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

    def settle(self, run: Run) -> None:  # noqa: B027 - most methods leave weights to the optimizer
        """Change weights, or their formula, to fit masks that were just set; nothing by default."""

    # -- the protocol, the same for all ---------------------------------------------------------------

    def attach(self, model: nn.Module, batches: Batches = ()) -> None:
        """Put the formula on ``model``'s prunable weights and set the first masks.

        Call it before the optimizer is built: parameters get new names and owners.

        Args:
            model: a plain model.
            batches: (inputs, targets) pairs for methods that look at data; magnitude needs none.

        Raises:
            ValueError: nothing to prune, NaN weights, an attached model, or settings that do not fit it.
        """
        if self._run is not None and not self._run.finished:
            raise ValueError(f"model: this {self.name} is already at work; call finish() first, or make a second one")
        carrying = next((name for name, _, _ in parametrized_weights(model)), None)
        if carrying is not None:
            raise ValueError(
                f"model: {carrying} already carries the formula of a method; finish that one and call fold(model)"
            )
        selection = prunable_weights(
            model,
            skip_first=self.skip_first,
            skip_last_linear=self.skip_last_linear,
            skip_depthwise=self.skip_depthwise,
            exclude=self.exclude,
        )
        space = self.filter_bases
        bases, starts = space.start(model, selection.weights) if space else ({}, {})
        masks = {
            w.name: self.first_mask(starts.get(w.name, stored_weight(w.module)), w.filter_axis)
            for w in selection.weights
        }
        before = spatial_weights(selection.weights, bases)
        subspaces = attach(
            selection.weights, masks=masks, bases=bases, coefficients=starts, straight_through=self.straight_through
        )
        run = Run(
            model=model,
            batches=batches,
            weights=selection.weights,
            subspaces=dict[str, Formula](subspaces),
            left_out=selection.left_out,
            dynamics=MaskDynamics.for_masks(list(masks.values())),
        )
        try:
            self._adopt(run, self.masks_at(run, 0))
        except BaseException:
            detach(selection.weights, before)
            raise
        if self.interspace is not None and self.basis == "random":
            run.warn(
                f"interspace: random bases begin with random coefficients, what {len(bases)} layers had learned is gone"
            )
        run.note_versions()
        object.__setattr__(self, "_run", run)

    def step(self, optimizer: Optimizer | None = None) -> None:
        """Tell the method that the optimizer made one step.

        Args:
            optimizer: the one that made it, for methods that start some weights with fresh momentum; without it
                they leave what momentum there is, which fades while a weight is masked.

        The first step warns when no weight has changed since :meth:`attach`: an optimizer that was built before it
        may hold parameters that are no longer in use.
        """
        run = self.run
        if run.step == 0 and run.untouched():
            run.warn(
                f"{self.name}: the first optimizer step changed no weight of {run.weights[0].name} or the others; "
                "build the optimizer after attach()"
            )
        run.step += 1
        self._adopt(run, self.masks_at(run, run.step))
        if optimizer is not None:
            self.refresh(run, optimizer)

    def refresh(self, run: Run, optimizer: Optimizer) -> None:  # noqa: B027 - most methods have nothing to forget
        """Forget optimizer state that no longer belongs to a weight; nothing by default."""

    def finish(self) -> None:
        """Bring the masks to the exact final budget; call it once, before fold.

        Raises:
            ValueError: the model was folded before.
        """
        run = self.run
        if run.finished:
            return
        if next(parametrized_weights(run.model), None) is None:
            raise ValueError(f"model: it was folded while {self.name} was at work; call finish() before fold(model)")
        self._adopt(run, self.final_masks(run))
        run.finished = True
        if empty := run.empty():
            run.warn(
                f"{self.name}: no weight is left in {', '.join(empty[:4])}{' and others' if empty[4:] else ''}, "
                "nothing passes there; a lower sparsity, minimum_units, or another distribution leaves some"
            )
        if self.interspace is not None:
            run.count_interspace()

    @property
    def filter_bases(self) -> Interspace | None:
        """The filter bases that layers get, None for pruning weights themselves."""
        if self.interspace is None:
            return None
        return Interspace(
            sharing=self.interspace,
            basis=self.basis,
            size=self.basis_size,
            seed=self.basis_seed,
            large_kernels=self.large_kernels,
        )

    @torch.no_grad()
    def _adopt(self, run: Run, masks: list[Tensor] | None) -> None:
        if masks is None:
            return
        run.dynamics.record(
            step=run.step,
            before=run.masks(),
            after=masks,
            coefficients=[run.coefficients(weight) for weight in run.weights],
        )
        run.set_masks(masks)
        self.settle(run)

    @property
    def run(self) -> Run:
        """The state of this run.

        Raises:
            ValueError: the method is not attached.
        """
        if self._run is None:
            raise ValueError(f"{self.name}: not attached to a model; call attach(model, batches) first")
        return self._run

    @property
    def history(self) -> list[MaskRecord]:
        """One record a mask update: sparsity, δ, overlap with the mask before, share still flipping."""
        return self.run.dynamics.records()

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
            "dynamics": run.dynamics.state_dict(),
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
        missing = {"dynamics", "step", "finished", "settings", *self.state_keys} - state.keys()
        if missing:
            raise ValueError(f"state: {sorted(missing)[0]!r} is missing; it is damaged or of another version")
        defaults = {field.name: repr(field.default) for field in fields(self)}  # of settings younger than the state
        for key, value in self._described().items():
            saved = state["settings"].get(key, defaults[key])
            if saved != value:
                raise ValueError(f"state: it was saved with {key}={saved}, this method has {value}")
        run = self.run
        run.dynamics.load_state_dict(state["dynamics"])
        run.step, run.finished = int(state["step"]), bool(state["finished"])
        run.findings = dict(state.get("findings", {}))
        run.warnings = list(state.get("warnings", ()))
