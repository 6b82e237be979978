"""One-shot magnitude pruning: rank once, cut once, fine-tune if you like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from compress.methods.ranked import Ranked
from compress.methods.run import Run
from compress.prunable import PrunableWeight


@dataclass(frozen=True, kw_only=True)
class OneShot(Ranked):
    """Keep the largest weights (or the filters of largest L2 norm) of a trained model, once and for all.

    Training after ``attach`` is fine-tuning with the mask fixed: masked weights get no gradient and stay
    zero, whatever momentum and weight decay do (Han et al. 2015; baseline "One-shot P+FT" of 003).
    """

    name: ClassVar[str] = "one_shot"
    summary: ClassVar[str] = "cut the smallest weights or filters of a trained model once; fine-tuning optional"
    paper: ClassVar[str] = "Han et al. 2015, Learning both weights and connections for efficient neural networks"

    def validate_choice(self) -> None:
        """No settings of its own."""

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Nothing depends on the length of training."""
        return replace(self)

    def sparsity_at(self, step: int) -> float:
        """The final sparsity from the start."""
        return self.sparsity

    def is_update(self, step: int) -> bool:
        """On attach only."""
        return step == 0

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude."""
        return self.magnitude(run, weight)
