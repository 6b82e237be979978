"""The state of one run of a method with masks: what it is at work on, and what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.dynamics import MaskDynamics
from compress.frozen import FrozenValues
from compress.frozen_subspace import FrozenSubspace
from compress.interspace import findings
from compress.methods.outcome import Batches, Outcome
from compress.prunable import PrunableWeight, stored_weight
from compress.subspace import Formula, coefficients, formula_of

_NOTED = 0.01  # difference of sparsities


@dataclass(kw_only=True)
class Run(Outcome):
    """A method at work on the masks of one model: its layers, its data, and what was recorded."""

    model: nn.Module
    batches: Batches
    weights: tuple[PrunableWeight, ...]
    subspaces: dict[str, Formula]
    left_out: dict[str, str]
    dynamics: MaskDynamics
    versions: list[int] = field(default_factory=list)

    def check_attached(self, method: str) -> None:
        """Raise ValueError where the model was folded while ``method`` was at work."""
        if formula_of(self.weights[0].module) is None:
            raise ValueError(f"model: it was folded while {method} was at work; call finish() before fold(model)")

    def note_versions(self) -> None:
        """Remember the trained tensors as they are, for :meth:`untouched`."""
        self.versions = [stored_weight(weight.module)._version for weight in self.weights]

    def untouched(self) -> bool:
        """Whether nothing was written to any trained tensor since :meth:`note_versions`, though some are trained."""
        tensors = [stored_weight(weight.module) for weight in self.weights]
        trained = any(tensor.requires_grad and tensor.numel() for tensor in tensors)
        return trained and [tensor._version for tensor in tensors] == self.versions

    def empty(self) -> list[str]:
        """Names of the weights of which nothing lives or acts."""
        masks = zip(self.weights, self.masks(), strict=True)
        return [weight.name for weight, mask in masks if self.subspaces[weight.name].prunes and not bool(mask.any())]

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

    def count_interspace(self) -> None:
        """Note what interspace pruning came to, and say where folding loses sparsity."""
        found = findings(self.model, self.weights, self.subspaces)
        self.findings |= found
        if found["interspace_sparsity"] - found["spatial_sparsity"] > _NOTED:
            self.warn(
                f"interspace: {found['interspace_sparsity']:.2%} of the coefficients are zero, but "
                f"{found['spatial_sparsity']:.2%} of the folded weights; "
                "a kernel is zero only where all its coefficients are"
            )
