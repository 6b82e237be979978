"""Fine-tuning of a model that is sparse already: its zeros are the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from compress.methods.masked import Masked
from compress.methods.run import Run


@dataclass(frozen=True, kw_only=True)
class FineTune(Masked):
    """Train on with the mask fixed to what is non-zero now (the "+ FT" of 003, Table 2)."""

    name: ClassVar[str] = "fine_tune"
    summary: ClassVar[str] = "train a sparse model on, its zeros fixed"
    paper: ClassVar[str] = "Lin et al. 2020, Dynamic model pruning with feedback, Table 2"

    def validate(self) -> None:
        """No settings of its own."""

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Nothing depends on the length of training."""
        return replace(self)

    def first_mask(self, coefficients: Tensor, filter_axis: int) -> Tensor:
        """One entry a weight."""
        return torch.ones_like(coefficients, dtype=torch.bool)

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """On attach: what is non-zero lives."""
        return [run.coefficients(weight) != 0 for weight in run.weights] if step == 0 else None

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The same masks."""
        return None
