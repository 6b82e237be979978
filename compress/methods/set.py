"""SET: dynamic sparse training that grows at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.methods.dynamic import Dynamic
from compress.methods.run import Run


@dataclass(frozen=True, kw_only=True)
class SET(Dynamic):
    """Sparse evolutionary training: swap the smallest weights for random ones (Mocanu et al. 2018; 002, 5.5.1).

    Mocanu et al. swap after every epoch, a fixed fraction ζ = 0.3 of the positive and of the negative weights each;
    here, as in the thesis 002 and Evci et al. 2020, it is the smallest by magnitude, and the fraction falls along a
    cosine. Needs no data and no dense gradient.
    """

    name: ClassVar[str] = "set"
    summary: ClassVar[str] = "train sparse from the start; every few steps the smallest weights give way to random ones"
    paper: ClassVar[str] = "Mocanu et al. 2018, Scalable training of neural networks with adaptive sparse connectivity"

    def growth(self, run: Run) -> Sequence[Tensor]:
        """Random draws."""
        return self.draws(run, run.step)
