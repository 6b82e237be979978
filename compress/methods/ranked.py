"""Methods with a budget: rank units by importance, keep an exact number, on a schedule."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.budget import DISTRIBUTIONS, Distribution, allocate, check_minimum
from compress.checks import require, require_whole
from compress.methods.base import Method, Run, setting
from compress.prunable import PrunableWeight
from compress.scores import STRUCTURES, Structure, magnitude

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ranked(Method):
    """A method that ends at ``sparsity``; subclasses say when masks are ranked, and by what."""

    sparsity: float = setting(0.9, "fraction of prunable units that end as zero, in [0, 1)")
    structure: Structure = setting("weights", "what lives or dies as a whole: weights or filters")
    distribution: Distribution = setting(
        "global", "one ranking over all layers (global), or the same share of each (layer)"
    )
    minimum_units: int | None = setting(
        None,
        "units every layer keeps at least; default 0 for weights, 1 for filters, so that no layer vanishes",
    )

    def validate(self) -> None:
        """Check the budget, then the schedule."""
        number = isinstance(self.sparsity, (int, float)) and not isinstance(self.sparsity, bool)
        require(number and 0 <= self.sparsity < 1, "sparsity", self.sparsity, "a fraction of zeros in [0, 1)")
        require(self.structure in STRUCTURES, "structure", self.structure, f"one of {', '.join(STRUCTURES)}")
        require(
            self.distribution in DISTRIBUTIONS,
            "distribution",
            self.distribution,
            f"one of {', '.join(DISTRIBUTIONS)}",
        )
        if self.minimum_units is not None:
            require_whole("minimum_units", self.minimum_units, 0)
        self.validate_schedule()

    @abstractmethod
    def validate_schedule(self) -> None:
        """Check the settings that say when; raise ValueError naming the wrong one."""

    @abstractmethod
    def sparsity_at(self, step: int) -> float:
        """Target sparsity after ``step`` optimizer steps."""

    @abstractmethod
    def is_update(self, step: int) -> bool:
        """Whether masks are ranked anew after ``step`` optimizer steps (0: on attach)."""

    @abstractmethod
    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Importance of the units of one weight, shaped like its mask; larger lives."""

    def unit_mask(self, weight: PrunableWeight) -> Tensor:
        """One entry a weight, or one a filter."""
        tensor = weight.module.weight
        assert isinstance(tensor, Tensor)
        units = magnitude(tensor, structure=self.structure, filter_axis=weight.filter_axis)
        return torch.ones_like(units, dtype=torch.bool)

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """The best units of the sparsity scheduled for ``step``."""
        if step == 0 and self.distribution == "global":  # better now than when the ramp gets there
            check_minimum([mask.numel() for mask in run.masks()], self.sparsity, self._minimum)
        return self._best(run, self.sparsity_at(step)) if self.is_update(step) else None

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The masks there are when they meet the budget; otherwise (training ended early) the best units."""
        masks = self._best(run, self.sparsity)
        if _living(masks) == _living(run.masks()):
            return None
        if run.step:
            run.warnings.append(
                f"{self.name}: training ended at step {run.step}, before the mask was ranked at its last sparsity; "
                f"cut from {run.sparsity:.4f} to {self.sparsity:.4f} at once"
            )
            logger.warning(run.warnings[-1])
        return masks

    @property
    def _minimum(self) -> int:
        default = 1 if self.structure == "filters" else 0
        return default if self.minimum_units is None else self.minimum_units

    def _best(self, run: Run, sparsity: float) -> list[Tensor]:
        scores = [self.rank(run, weight) for weight in run.weights]
        return allocate(scores, sparsity, distribution=self.distribution, minimum=self._minimum)


def _living(masks: list[Tensor]) -> int:
    return sum(int(torch.count_nonzero(mask)) for mask in masks)
