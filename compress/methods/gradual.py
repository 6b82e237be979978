"""Gradual magnitude pruning: sparsity grows during training, and what is cut never grows back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from compress.checks import require
from compress.methods.base import Run, setting
from compress.methods.ranked import Ranked
from compress.prunable import PrunableWeight
from compress.schedules import cubic
from compress.scores import magnitude


@dataclass(frozen=True, kw_only=True)
class Gradual(Ranked):
    """Prune by magnitude on the cubic schedule of thesis 002, equation (5.16); a pruned weight never regrows.

    Masked weights get no gradient: the method trains the weights that are left (baseline "Incremental" of
    003; Zhu & Gupta 2017).
    """

    start_step: int = setting(0, "t0: optimizer steps of dense training before the first cut")
    ramp_steps: int | None = setting(
        None,
        "t1 - t0: steps over which sparsity grows; default up to the second learning-rate drop, else 3/4",
    )
    period: int = setting(100, "tp: optimizer steps between two cuts")

    name: ClassVar[str] = "gradual"
    summary: ClassVar[str] = "cut a little more every few steps while training; cut weights never grow back"
    paper: ClassVar[str] = "Zhu & Gupta 2017, To prune, or not to prune"

    def validate_schedule(self) -> None:
        """Check the schedule."""
        validate_ramp(self.start_step, self.ramp_steps, self.period)

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Fill ``ramp_steps``."""
        ramp = self.ramp_steps
        if ramp is None:
            ramp = default_ramp(self.start_step, total_steps, lr_drops)
        return replace(self, ramp_steps=ramp)

    def sparsity_at(self, step: int) -> float:
        """Cubic growth from 0 at ``start_step`` to the target."""
        return cubic(step, start=self.start_step, length=known(self.ramp_steps), initial=0.0, final=self.sparsity)

    def is_update(self, step: int) -> bool:
        """Every ``period`` steps within the ramp, and once at its end."""
        end = self.start_step + known(self.ramp_steps)
        return self.start_step <= step <= end and (step % self.period == 0 or step == end)

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude of what lives; what was cut ranks last."""
        score = magnitude(run.coefficients(weight), structure=self.structure, filter_axis=weight.filter_axis)
        return torch.where(run.subspaces[weight.name].mask, score, -1.0)


def known(ramp_steps: int | None) -> int:
    """``ramp_steps``, or an error that says how to get it."""
    if ramp_steps is None:
        raise ValueError(
            "ramp_steps: not set; give the number of optimizer steps over which sparsity grows, "
            "or call planned(total_steps, lr_drops) to have it chosen"
        )
    return ramp_steps


def validate_ramp(start_step: int, ramp_steps: int | None, period: int) -> None:
    """Check the three numbers of a sparsity ramp; ValueError names the wrong one."""
    require(isinstance(start_step, int) and start_step >= 0, "start_step", start_step, "a whole number, 0 or more")
    require(
        ramp_steps is None or (isinstance(ramp_steps, int) and ramp_steps >= 0),
        "ramp_steps",
        ramp_steps,
        "a whole number of steps, 0 or more",
    )
    require(isinstance(period, int) and period >= 1, "period", period, "a whole number of steps, 1 or more")


def default_ramp(start_step: int, total_steps: int, lr_drops: Sequence[int]) -> int:
    """Steps from ``start_step`` to the second learning-rate drop (003, A.2), else 3/4 of what is left."""
    if len(lr_drops) >= 2 and lr_drops[1] > start_step:
        return lr_drops[1] - start_step
    return max(0, (total_steps - start_step) * 3 // 4)
