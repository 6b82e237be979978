"""Dynamic sparse training: sparse from the first step to the last, while the mask moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from compress.budget import Distribution, top_mask
from compress.checks import known_steps, require, require_whole
from compress.methods.base import setting
from compress.methods.budgeted import Budgeted
from compress.methods.run import Run
from compress.prunable import stored_weight
from compress.schedules import cosine
from compress.structures import Neighbours


@dataclass(frozen=True, kw_only=True)
class Dynamic(Budgeted):
    """A random mask that swaps its smallest weights for others; subclasses say for which (Evci et al. 2020, RigL).

    The mask is drawn on attach and every layer keeps its number of living units for good, so the budget is exact from
    the first step. Every ``period`` steps before T_end = ``stop_step`` each layer drops the
    ⌊α/2 · (1 + cos(π t / T_end)) · living⌋ units of smallest magnitude and grows as many (Algorithm 1; the cosine is
    that of the thesis 002, section 5.5.1, for SET too, whose own paper drops a fixed fraction). What may grow is all
    that is not kept, also what was dropped this very moment (i ∉ θ \\ I_active): such a unit just stays as it is.

    A unit that grows starts at 0 with fresh momentum (when ``step`` is given the optimizer). Dead weights are 0, not
    merely masked, and so is their momentum: neither weight decay nor momentum moves them.
    """

    distribution: Distribution = setting("erk", "more of small layers (erk), or the same share of each (layer)")
    skip_last_linear: bool = setting(False, "keep the last linear layer dense")
    period: int = setting(100, "ΔT: optimizer steps between two moves of the mask")
    drop_fraction: float = setting(0.3, "α: share of a layer's living units that is swapped, at first; falls to 0")
    stop: float = setting(0.75, "share of training after which the mask rests, in (0, 1]")
    stop_step: int | None = setting(None, "T_end: the same in optimizer steps; default: stop of training")
    seed: int = setting(0, "draws the first mask, and what SET grows")

    @abstractmethod
    def growth(self, run: Run) -> Sequence[Tensor]:
        """What each unit of each layer is worth if it grows, 0 or more; larger grows first."""

    def validate_choice(self) -> None:
        """Check structure, distribution and schedule."""
        if isinstance(self.units, Neighbours):
            raise ValueError(
                f"structure: {self.structure!r} fixes how many live in each group, and {self.name} moves them freely "
                "within a layer; take weights, filters or block:RxC, or another method"
            )
        require(
            self.distribution != "global",
            "distribution",
            self.distribution,
            f"one of erk, layer; {self.name} never compares weights of different layers",
        )
        require_whole("period", self.period, 1, "a whole number of steps")
        for argument, value in (("drop_fraction", self.drop_fraction), ("stop", self.stop)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number and 0 < value <= 1, argument, value, "a fraction in (0, 1]")
        if self.stop_step is not None:
            require_whole("stop_step", self.stop_step, 0, "a whole number of steps")
        require_whole("seed", self.seed, 0)

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Fill ``stop_step``: ``stop`` of training."""
        if self.stop_step is not None:
            return replace(self)
        return replace(self, stop_step=round(self.stop * total_steps))

    @property
    def known_stop(self) -> int:
        """``stop_step``.

        Raises:
            ValueError: it was left open, and nobody planned it.
        """
        return known_steps("stop_step", self.stop_step, "the optimizer step after which the mask rests")

    def is_update(self, step: int) -> bool:
        """Whether the mask moves after ``step`` optimizer steps."""
        return step < self.known_stop and step > 0 and step % self.period == 0

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """On attach a random mask, then one that has moved, every ``period`` steps."""
        if self.is_update(step):
            return self._moved(run, self.growth(run))
        if step:
            return None
        self.check_budget(run)
        return self.choose(run, self.draws(run, step), self.sparsity)

    def draws(self, run: Run, step: int) -> list[Tensor]:
        """A number in [0, 1) for every unit, a function of ``seed`` and ``step`` alone."""
        mixed = int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(mixed)
        alive = [self.alive(run, weight) for weight in run.weights]
        return [torch.rand(units.shape, generator=generator).to(units.device) for units in alive]

    def _moved(self, run: Run, worth: Sequence[Tensor]) -> list[Tensor]:
        fraction = cosine(run.step, length=self.known_stop, initial=self.drop_fraction)
        masks = []
        for weight, score in zip(run.weights, worth, strict=True):
            alive = self.alive(run, weight)
            living = int(torch.count_nonzero(alive))
            dropped = int(fraction * living)
            kept = top_mask(torch.where(alive, self.magnitude(run, weight), -1.0), living - dropped)
            grown = top_mask(torch.where(kept, -1.0, score), dropped)
            masks.append(self.units.mask(kept | grown, run.coefficients(weight).shape, weight.filter_axis))
        return masks

    def settle(self, run: Run) -> None:
        """Dead weights, and those that have just grown, become 0."""
        for weight, changed in zip(run.weights, run.dynamics.latest(), strict=True):
            mask = run.subspaces[weight.name].mask
            run.coefficients(weight).masked_fill_(~mask | changed.to(mask.device), 0.0)

    def refresh(self, run: Run, optimizer: Optimizer) -> None:
        """Forget momentum and second moments of weights that have just grown or died."""
        if not self.is_update(run.step):
            return
        for weight, changed in zip(run.weights, run.dynamics.latest(), strict=True):
            beta = stored_weight(weight.module)
            for value in optimizer.state.get(beta, {}).values():
                if isinstance(value, Tensor) and value.shape == beta.shape:
                    value.masked_fill_(changed.to(value.device), 0.0)

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The same masks; notes the share of weights that ever lived (thesis 002, section 2.3.1)."""
        lived = total = 0
        for mask, changed in zip(run.masks(), run.dynamics.last_change, strict=True):
            lived += int(torch.count_nonzero(mask | (changed > 0).to(mask.device)))
            total += mask.numel()
        run.findings["explored"] = lived / total
        if run.step and len(run.dynamics.rows) == 1:
            run.warn(
                f"{self.name}: the mask never moved, {run.step} steps with period={self.period} and "
                f"stop_step={self.known_stop} hold no update; lower period or train longer"
            )
        return None
