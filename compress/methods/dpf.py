"""Dynamic pruning with feedback: train the sparse model, update the dense one (003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.methods.ramped import Ramped
from compress.methods.run import Run
from compress.prunable import PrunableWeight


@dataclass(frozen=True, kw_only=True)
class DPF(Ramped):
    """w ← w − γ g(m ⊙ w): the gradient at the pruned weights moves the dense ones (003, Algorithm 1).

    Forward and backward run at w̃ = m ⊙ w; the straight-through gradient, momentum and weight decay act on
    the dense w, so a weight cut too early grows back. Every ``period`` steps, to the very end of training,
    the mask is ranked anew from |w|, with the sparsity of the cubic ramp. ``dense_weights(model)`` gives
    w_T before ``fold`` leaves w̃_T. Fine-tuning with the mask fixed (003, Table 2) is a further stage,
    method ``fine_tune``.
    """

    name: ClassVar[str] = "dpf"
    summary: ClassVar[str] = "prune while training; cut weights keep learning and may grow back"
    paper: ClassVar[str] = "Lin et al. 2020, Dynamic model pruning with feedback"
    straight_through: ClassVar[bool] = True

    def is_update(self, step: int) -> bool:
        """Every ``period`` steps, to the end."""
        return step % self.period == 0

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude of the dense weight."""
        return self.magnitude(run, weight)
