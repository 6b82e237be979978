"""Methods whose sparsity grows during training, on the cubic ramp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from compress.checks import known_steps, require_whole
from compress.methods.base import setting
from compress.methods.ranked import Ranked
from compress.schedules import cubic


@dataclass(frozen=True, kw_only=True)
class Ramped(Ranked):
    """A ranked method whose target grows from 0 at ``start_step`` to ``sparsity`` (003, A.2; 002, (5.16))."""

    start_step: int = setting(0, "t0: optimizer steps before sparsity starts to grow from 0")
    ramp_steps: int | None = setting(
        None, "steps over which sparsity grows; default up to the second learning-rate drop, else 3/4 of training"
    )
    period: int = setting(16, "p: optimizer steps between two rankings of the mask")

    def validate_choice(self) -> None:
        """Check the three step counts."""
        require_whole("start_step", self.start_step, 0, "a whole number of steps")
        if self.ramp_steps is not None:
            require_whole("ramp_steps", self.ramp_steps, 0, "a whole number of steps")
        require_whole("period", self.period, 1, "a whole number of steps")

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Fill ``ramp_steps``: up to the second learning-rate drop, else three quarters of what is left."""
        if self.ramp_steps is not None:
            return replace(self)
        if len(lr_drops) >= 2 and lr_drops[1] > self.start_step:
            return replace(self, ramp_steps=lr_drops[1] - self.start_step)
        return replace(self, ramp_steps=max(0, (total_steps - self.start_step) * 3 // 4))

    def sparsity_at(self, step: int) -> float:
        """Cubic growth, then constant."""
        return cubic(step, start=self.start_step, length=self.known_ramp, initial=0.0, final=self.sparsity)

    @property
    def known_ramp(self) -> int:
        """``ramp_steps``.

        Raises:
            ValueError: it was left open, and nobody planned it.
        """
        return known_steps("ramp_steps", self.ramp_steps, "the number of optimizer steps over which sparsity grows")
