"""Methods that rank units by importance, on a schedule."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.methods.budgeted import Budgeted
from compress.methods.run import Run
from compress.prunable import PrunableWeight


@dataclass(frozen=True, kw_only=True)
class Ranked(Budgeted):
    """A method that ends at ``sparsity``; subclasses say when masks are ranked, and by what."""

    @abstractmethod
    def sparsity_at(self, step: int) -> float:
        """Target sparsity after ``step`` optimizer steps."""

    @abstractmethod
    def is_update(self, step: int) -> bool:
        """Whether masks are ranked anew after ``step`` optimizer steps (0: on attach)."""

    @abstractmethod
    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Importance of the units of one weight; larger lives."""

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """The best units of the sparsity scheduled for ``step``."""
        if step == 0:
            self.check_budget(run)
        return self._best(run, self.sparsity_at(step)) if self.is_update(step) else None

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The masks there are when they meet the budget; otherwise (training ended early) the best units."""
        masks = self._best(run, self.sparsity)
        if _living(masks) == _living(run.masks()):
            return None
        if run.step:
            run.warn(
                f"{self.name}: training ended at step {run.step}, before the mask was ranked at its last sparsity; "
                f"cut from {run.sparsity:.4f} to {self.sparsity:.4f} at once"
            )
        return masks

    def _best(self, run: Run, sparsity: float) -> list[Tensor]:
        return self.choose(run, [self.rank(run, weight) for weight in run.weights], sparsity)


def _living(masks: list[Tensor]) -> int:
    return sum(int(torch.count_nonzero(mask)) for mask in masks)
