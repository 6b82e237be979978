"""How a mask moves during training: the diagnostics of DPF (003, equation (1), Figures 4 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MaskRecord:
    """One mask update.

    Attributes:
        step: optimizer steps done before it.
        sparsity: fraction of weights masked after it.
        delta: δ_t = ‖w − w̃‖² / ‖w‖² over the prunable weights, w dense and w̃ masked (equation (1)).
        iou: |m ∩ m'| / |m ∪ m'| of the living weights before and after (Figure 7).
        flipping: share of mask elements that still change after this step (Figure 4).
    """

    step: int
    sparsity: float
    delta: float
    iou: float
    flipping: float


@dataclass(kw_only=True)
class MaskDynamics:
    """Recorder of mask updates; costs one int32 a mask element."""

    last_change: list[Tensor]
    rows: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def for_masks(cls, masks: Sequence[Tensor]) -> Self:
        """A recorder for masks of these shapes."""
        return cls(last_change=[torch.full_like(mask, -1, dtype=torch.int32) for mask in masks])

    def record(
        self, *, step: int, before: Sequence[Tensor], after: Sequence[Tensor], coefficients: Sequence[Tensor]
    ) -> None:
        """Note an update from masks ``before`` to ``after``, both broadcastable to ``coefficients``."""
        update = len(self.rows)
        union = common = living = total = 0
        norm = lost = 0.0
        for old, new, beta, changed in zip(before, after, coefficients, self.last_change, strict=True):
            weights_per_unit = beta.numel() // new.numel()
            flips = old ^ new
            changed.masked_fill_(flips.to(changed.device), update)
            kept, flipped = int(torch.count_nonzero(new)), int(torch.count_nonzero(flips))
            # |old| = |new| + |gone| - |grown|; intersection and union follow from the two counts.
            both = (kept + int(torch.count_nonzero(old)) - flipped) // 2
            common += both * weights_per_unit
            union += (both + flipped) * weights_per_unit
            living += kept * weights_per_unit
            total += beta.numel()
            norm += float(torch.linalg.vector_norm(beta)) ** 2
            lost += float(torch.linalg.vector_norm(torch.where(new, 0.0, beta))) ** 2
        self.rows.append(
            {
                "step": step,
                "sparsity": 1.0 - living / total,
                "delta": lost / norm if norm else 0.0,
                "iou": common / union if union else 1.0,
            }
        )

    def close(self) -> None:
        """Give the int32 a mask element back: no mask will change any more."""
        self.last_change = []

    def records(self) -> list[MaskRecord]:
        """All updates so far; ``flipping`` looks ahead to the last of them."""
        updates = len(self.rows)
        flips = torch.zeros(updates + 1, dtype=torch.int64)
        for changed in self.last_change:
            flips += torch.bincount(changed.flatten().cpu() + 1, minlength=updates + 1)
        total = int(flips.sum())
        later = total - torch.cumsum(flips, 0)[1:]
        return [
            MaskRecord(
                step=int(row["step"]),
                sparsity=row["sparsity"],
                delta=row["delta"],
                iou=row["iou"],
                flipping=int(after) / max(1, total),
            )
            for row, after in zip(self.rows, later, strict=True)
        ]

    def latest(self) -> list[Tensor]:
        """Which elements of each mask changed at the last update."""
        return [changed == len(self.rows) - 1 for changed in self.last_change]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only."""
        return {"last_change": list(self.last_change), "rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            ValueError: the state was taken from other layers.
        """
        saved: Sequence[Tensor] = state["last_change"]
        if [tuple(t.shape) for t in saved] != [tuple(t.shape) for t in self.last_change]:
            raise ValueError("state: it was saved for other layers than this model has")
        for mine, other in zip(self.last_change, saved, strict=True):
            mine.copy_(other)
        self.rows = [dict(row) for row in state["rows"]]


def as_json(records: Sequence[MaskRecord]) -> list[dict[str, float]]:
    """Records as plain dictionaries."""
    return [asdict(record) for record in records]
