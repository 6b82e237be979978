"""Pruning before training: score once, cut once, train what is left. SNIP, GraSP, SynFlow, COPS and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.methods.run import Run
from compress.methods.scored import ScoredOnce


@dataclass(frozen=True, kw_only=True)
class AtInit(ScoredOnce):
    """Keep the best weights of an untrained network by any score, or by two of them through COPS (000, 002).

    The mask is found when the method is attached and stays; masked weights get no gradient. With ``control`` the
    mask is that of COPS: best by ``score``, while ``control`` keeps at least α of what it could have at most
    (G-COPS: grasp, M-COPS: magnitude, U-COPS: usnip). Where fewer than the budget's weights have a negative
    combined score, the next ones fill it up, since budgets are exact here.
    """

    name: ClassVar[str] = "at_init"
    summary: ClassVar[str] = "cut before training, by one score or by two (COPS); only what is left is trained"
    paper: ClassVar[str] = (
        "Wimmer et al. 2021, COPS; Lee et al. 2019, SNIP; Wang et al. 2020, GraSP; Tanaka et al. 2020, SynFlow"
    )

    def validate_choice(self) -> None:
        """Check scores, COPS and sampling."""
        self.check_scores()

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """On attach: the best."""
        return None if step else self.best_masks(run)

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The same masks."""
        return None
