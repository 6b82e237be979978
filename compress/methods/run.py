"""The state of one run of a method with masks: what it is at work on, and what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.dynamics import MaskDynamics
from compress.frozen import FrozenValues
from compress.frozen_subspace import FrozenSubspace
from compress.methods.outcome import Batches, Outcome
from compress.prunable import PrunableWeight
from compress.subspace import Formula, coefficients


@dataclass(kw_only=True)
class Run(Outcome):
    """A method at work on the masks of one model: its layers, its data, and what was recorded."""

    model: nn.Module
    batches: Batches
    weights: tuple[PrunableWeight, ...]
    subspaces: dict[str, Formula]
    left_out: dict[str, str]
    dynamics: MaskDynamics

    def coefficients(self, weight: PrunableWeight) -> Tensor:
        """β of one weight, masked coefficients included."""
        return coefficients(weight.module)

    def masks(self) -> list[Tensor]:
        """Current masks in layer order, each broadcastable to its weight."""
        return [self.subspaces[weight.name].mask for weight in self.weights]

    def set_masks(self, masks: Sequence[Tensor]) -> None:
        """Replace the masks in place; ValueError where weights are frozen, for only trained ones are parameters."""
        if self.frozen:
            raise ValueError("masks: which weights are frozen is decided on attach; fold the model and attach again")
        for old, new in zip(self.masks(), masks, strict=True):
            old.copy_(new)

    @property
    def frozen(self) -> dict[str, FrozenValues]:
        """Where frozen values come from, by weight name; empty for methods that leave no weight frozen."""
        formulas = self.subspaces.items()
        return {name: formula.source for name, formula in formulas if isinstance(formula, FrozenSubspace)}

    @property
    def sparsity(self) -> float:
        """Fraction of units that are masked and therefore zero now; 0 where masked ones are frozen, not pruned."""
        if not all(formula.prunes for formula in self.subspaces.values()):
            return 0.0
        masks = self.masks()
        return 1.0 - sum(int(torch.count_nonzero(m)) for m in masks) / sum(m.numel() for m in masks)
