"""Learning-rate schedules: pure functions of the optimizer step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from compress.checks import require

Schedule = Literal["step", "cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("step", "cosine", "constant")


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """How the learning rate moves over training, as a factor of its base value.

    Attributes:
        schedule: "step" multiplies by ``gamma`` at each milestone; "cosine" falls to 0 at the end along
            half a cosine; "constant" stays.
        milestones: fractions of training, ascending, in (0, 1); the default is that of 003 for CIFAR.
        gamma: factor at a milestone.
        warmup: fraction of training with linear growth from 1/100 of the base value, in [0, 1).
    """

    schedule: Schedule = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: float = 0.0

    def __post_init__(self) -> None:
        require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        require(
            list(self.milestones) == sorted(set(self.milestones)) and all(0 < m < 1 for m in self.milestones),
            "milestones",
            self.milestones,
            "ascending fractions of training in (0, 1)",
        )
        require(0 < self.gamma <= 1, "gamma", self.gamma, "a factor in (0, 1]")
        require(0 <= self.warmup < 1, "warmup", self.warmup, "a fraction of training in [0, 1)")

    def factor(self, step: int, total_steps: int) -> float:
        """Factor on the base learning rate for the optimizer step number ``step`` (from 0)."""
        warm = self.warmup * total_steps
        if step < warm:
            return 0.01 + 0.99 * step / warm
        if self.schedule == "step":
            return self.gamma ** sum(step >= drop for drop in self.drops(total_steps))
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1.0, total_steps - warm)))
        return 1.0

    def drops(self, total_steps: int) -> list[int]:
        """Steps at which the rate falls at once; empty for smooth schedules."""
        return [round(m * total_steps) for m in self.milestones] if self.schedule == "step" else []
