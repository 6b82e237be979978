"""RigL: dynamic sparse training that grows where the gradient is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from compress.methods.dynamic import Dynamic
from compress.methods.run import Run
from compress.sampling import Cycle
from compress.scores import gradient


@dataclass(frozen=True, kw_only=True)
class RigL(Dynamic):
    """Swap the smallest weights for those of largest |∂L/∂W|, dead ones included (Evci et al. 2020, Algorithm 1).

    Algorithm 1 makes no gradient step where the mask moves: the batch of that step serves the mask. Here ``step``
    comes after the optimizer's own, so the update takes one batch more and makes no weight step on it: the next in a
    pass of its own over ``batches``, which begins anew when they end. The dense gradient is that of the mean
    cross-entropy in train mode, taken on a copy of the model.

    ``batches`` should come in the same order whenever they are gone through, or resuming cannot give the same bits.
    """

    _cycle: Cycle | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "rigl"
    summary: ClassVar[str] = "train sparse from the start; the smallest weights give way to those the gradient asks for"
    state_keys: ClassVar[tuple[str, ...]] = ("batches_taken",)
    paper: ClassVar[str] = "Evci et al. 2020, Rigging the lottery: making all tickets winners"

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """As for every dynamic method; on attach also see that there is data."""
        if step == 0:
            object.__setattr__(self, "_cycle", Cycle(run.batches))
            self._batches.check()
        return super().masks_at(run, step)

    def growth(self, run: Run) -> Sequence[Tensor]:
        """|∂L/∂W| of the next batch, L2 norms of filters and blocks."""
        return [
            self.units.scores(score, weight.filter_axis, norm=True)
            for score, weight in zip(gradient(run.model, run.weights, [self._batches.take()]), run.weights, strict=True)
        ]

    @property
    def _batches(self) -> Cycle:
        assert self._cycle is not None  # made on attach
        return self._cycle

    def state_dict(self) -> dict[str, Any]:
        """Also how many batches were read."""
        return {**super().state_dict(), "batches_taken": self._batches.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Also go on with the batch that comes next."""
        super().load_state_dict(state)
        cycle = Cycle(self.run.batches)
        cycle.skip(int(state["batches_taken"]))
        object.__setattr__(self, "_cycle", cycle)
