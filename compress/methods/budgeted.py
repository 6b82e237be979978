"""Methods with a budget: how much lives, in which structure, and how it is spread over the layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.budget import DISTRIBUTIONS, Distribution, allocate, check_minimum
from compress.checks import require, require_whole
from compress.methods.base import Method, Run, setting
from compress.prunable import PrunableWeight
from compress.scores import STRUCTURES, Structure, magnitude


@dataclass(frozen=True, kw_only=True)
class Budgeted(Method):
    """A method that ends at exactly ``sparsity``; subclasses say how the units that live are chosen."""

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
        self.validate_choice()

    @abstractmethod
    def validate_choice(self) -> None:
        """Check the settings that say how and when; raise ValueError naming the wrong one."""

    def unit_mask(self, weight: PrunableWeight) -> Tensor:
        """One entry a weight, or one a filter."""
        tensor = weight.module.weight
        assert isinstance(tensor, Tensor)
        units = magnitude(tensor, structure=self.structure, filter_axis=weight.filter_axis)
        return torch.ones_like(units, dtype=torch.bool)

    def check_budget(self, run: Run) -> None:
        """Raise ValueError unless the final budget can be met; better on attach than when a ramp gets there."""
        if self.distribution == "global":
            check_minimum([mask.numel() for mask in run.masks()], self.sparsity, self.minimum)

    def choose(self, scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
        """Masks of the best units."""
        return allocate(scores, sparsity, distribution=self.distribution, minimum=self.minimum)

    @property
    def minimum(self) -> int:
        """Units that every layer keeps."""
        default = 1 if self.structure == "filters" else 0
        return default if self.minimum_units is None else self.minimum_units
