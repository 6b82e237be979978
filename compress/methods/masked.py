"""Methods whose answer is masks on the one formula: which hold after t optimizer steps, and which at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.bases import Initialisation
from compress.checks import patterns, require
from compress.dynamics import MaskDynamics, MaskRecord
from compress.interspace import Interspace
from compress.methods.base import Method, setting
from compress.methods.outcome import Batches
from compress.methods.run import Run
from compress.prunable import prunable_weights, stored_weight
from compress.sharing import NAMES as SHARINGS
from compress.subspace import Formula, attach, detach, parametrized_weights, spatial_weights


@dataclass(frozen=True, kw_only=True)
class Masked(Method):
    """A policy on masks: the settings that all of them share, and everything but the masks themselves."""

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

    straight_through: ClassVar[bool] = False
    shared_keys: ClassVar[tuple[str, ...]] = ("dynamics",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", patterns("exclude", self.exclude))
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
        super().__post_init__()

    # -- what a method answers ------------------------------------------------------------------------

    @abstractmethod
    def first_mask(self, coefficients: Tensor, filter_axis: int) -> Tensor:
        """An all-ones bool mask, broadcastable to the coefficients of one weight."""

    @abstractmethod
    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """Masks that hold after ``step`` optimizer steps (0: on attach), or None to keep those there are."""

    @abstractmethod
    def final_masks(self, run: Run) -> list[Tensor] | None:
        """Masks of the exact final budget, or None when those there are meet it."""

    def settle(self, run: Run) -> None:
        """Change weights, or their formula, to fit masks that were just set; nothing by default."""

    # -- the protocol -----------------------------------------------------------------------------------

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

        Raises:
            ValueError: the run is finished, or the model was folded.
        """
        run = self.run
        if run.finished:
            raise ValueError(f"{self.name}: finish() was called, the masks are final; attach another method to go on")
        run.check_attached(self.name)
        if run.step == 0 and run.untouched():
            run.warn(
                f"{self.name}: the first optimizer step changed no weight of {run.weights[0].name} or the others; "
                "build the optimizer after attach()"
            )
        run.step += 1
        self._adopt(run, self.masks_at(run, run.step))
        if optimizer is not None:
            self.refresh(run, optimizer)

    def refresh(self, run: Run, optimizer: Optimizer) -> None:
        """Forget optimizer state that no longer belongs to a weight; nothing by default."""

    def finish(self) -> None:
        """Bring the masks to the exact final budget; call it once, before fold.

        Raises:
            ValueError: the model was folded before.
        """
        run = self.run
        if run.finished:
            return
        run.check_attached(self.name)
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
            raise self.unattached()
        return self._run

    @property
    def history(self) -> list[MaskRecord]:
        """One record a mask update: sparsity, δ, overlap with the mask before, share still flipping."""
        return self.run.dynamics.records()

    def state_dict(self) -> dict[str, Any]:
        """Also the records of masks."""
        return {**super().state_dict(), "dynamics": self.run.dynamics.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Also take over the records of masks.

        Raises:
            ValueError: the state belongs to another method, other settings or another model.
        """
        super().load_state_dict(state)
        self.run.dynamics.load_state_dict(state["dynamics"])
