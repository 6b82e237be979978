"""Gradual magnitude pruning: sparsity grows during training, and what is cut never grows back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.methods.base import setting
from compress.methods.ramped import Ramped
from compress.methods.run import Run
from compress.prunable import PrunableWeight


@dataclass(frozen=True, kw_only=True)
class Gradual(Ramped):
    """Prune by magnitude on the cubic schedule of thesis 002, equation (5.16); a pruned weight never regrows.

    Masked weights get no gradient: the method trains the weights that are left (baseline "Incremental" of
    003; Zhu & Gupta 2017).
    """

    period: int = setting(100, "tp: optimizer steps between two cuts")

    name: ClassVar[str] = "gradual"
    summary: ClassVar[str] = "cut a little more every few steps while training; cut weights never grow back"
    paper: ClassVar[str] = "Zhu & Gupta 2017, To prune, or not to prune"

    def is_update(self, step: int) -> bool:
        """Every ``period`` steps within the ramp, and once at its end."""
        end = self.start_step + self.known_ramp
        return self.start_step <= step <= end and (step % self.period == 0 or step == end)

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude of what lives; what was cut ranks last."""
        return torch.where(self.alive(run, weight), self.magnitude(run, weight), -1.0)
