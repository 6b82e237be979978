"""Dynamic pruning with feedback: train the sparse model, update the dense one (003)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from compress.methods.base import Run, setting
from compress.methods.gradual import default_ramp, known, validate_ramp
from compress.methods.ranked import Ranked
from compress.prunable import PrunableWeight
from compress.schedules import cubic
from compress.scores import magnitude


@dataclass(frozen=True, kw_only=True)
class DPF(Ranked):
    """w ← w − γ g(m ⊙ w): the gradient at the pruned weights moves the dense ones (003, Algorithm 1).

    Forward and backward run at w̃ = m ⊙ w; the straight-through gradient, momentum and weight decay act on
    the dense w, so a weight cut too early grows back. Every ``period`` steps, to the very end of training,
    the mask is ranked anew from |w|, with the sparsity of the cubic ramp. ``dense_weights(model)`` gives
    w_T before ``fold`` leaves w̃_T. Fine-tuning with the mask fixed (003, Table 2) is a further stage,
    method ``fine_tune``.
    """

    start_step: int = setting(0, "t0: step at which sparsity starts to grow from 0")
    ramp_steps: int | None = setting(
        None,
        "steps over which sparsity grows; default up to the second learning-rate drop, else 3/4 of training",
    )
    period: int = setting(16, "p: optimizer steps between two rankings of the mask")

    name: ClassVar[str] = "dpf"
    summary: ClassVar[str] = "prune while training; cut weights keep learning and may grow back"
    paper: ClassVar[str] = "Lin et al. 2020, Dynamic model pruning with feedback"
    straight_through: ClassVar[bool] = True

    def validate_schedule(self) -> None:
        """Check the schedule."""
        validate_ramp(self.start_step, self.ramp_steps, self.period)

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Fill ``ramp_steps``: to the second learning-rate drop (003, A.2)."""
        ramp = self.ramp_steps
        if ramp is None:
            ramp = default_ramp(self.start_step, total_steps, lr_drops)
        return replace(self, ramp_steps=ramp)

    def sparsity_at(self, step: int) -> float:
        """Cubic ramp from 0, then constant (003, A.2)."""
        return cubic(step, start=self.start_step, length=known(self.ramp_steps), initial=0.0, final=self.sparsity)

    def is_update(self, step: int) -> bool:
        """Every ``period`` steps, to the end."""
        return step % self.period == 0

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude of the dense weight."""
        return magnitude(run.coefficients(weight), structure=self.structure, filter_axis=weight.filter_axis)
