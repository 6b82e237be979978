"""The K-sparse polytope of 001: the convex hull of vectors with K entries of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.checks import require_whole
from compress.frank_wolfe.set import FeasibleSet
from compress.frank_wolfe.shrinkage import clipped_sum


@dataclass(frozen=True, kw_only=True)
class KSparsePolytope(FeasibleSet):
    """min ⟨m, v⟩ over C(K, τ) = {‖v‖₁ ≤ τK, ‖v‖_∞ ≤ τ}, whose vertices have K entries ±τ and zeros (001, B.1).

    Every Frank-Wolfe step averages a tensor with such a vertex, so the entries that are not among the K are pushed
    towards zero: training votes on which weights are to matter.

    Attributes:
        k: K, entries of a vertex that are not zero; a tensor with fewer entries counts as having K = n.
        radius: τ, the size of these entries.
    """

    k: int

    kind: ClassVar[str] = "k_sparse"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("k", self.k, 1)

    def lmo(self, direction: Tensor) -> Tensor:
        """−τ · sign at the K entries of largest |m|, zero elsewhere (2); the text's "largest coordinates" is a slip.

        Where fewer than K entries differ from zero, the others stay zero: they decide nothing.
        """
        flat = direction.reshape(-1)
        chosen = flat.abs().topk(self._count(direction), sorted=False).indices
        vertex = torch.zeros_like(flat)
        vertex[chosen] = -self.radius * flat[chosen].sign()
        return vertex.view_as(direction)

    def project(self, point: Tensor) -> Tensor:
        """sign(θ) · min(max(|θ| − λ, 0), τ), with λ = 0 or the one at which the entries' sizes sum to τK."""
        bound = self._bound(point)
        sizes = point.abs().reshape(-1)
        clipped = sizes.clamp(max=self.radius)
        if float(clipped.sum(dtype=torch.float64)) > bound:
            clipped = clipped_sum(sizes, bound, self.radius)
        return point.sign() * clipped.view_as(point)

    def excesses(self, point: Tensor) -> dict[str, tuple[float, float]]:
        """‖θ‖₁ against τK and ‖θ‖_∞ against τ."""
        sizes = point.abs()
        return {
            "‖θ‖₁": (float(sizes.sum(dtype=torch.float64)), self._bound(point)),
            "‖θ‖_∞": (float(sizes.max()) if sizes.numel() else 0.0, self.radius),
        }

    def scale(self, point: Tensor) -> Tensor:
        """θ · min(1, τK / ‖θ‖₁, τ / ‖θ‖_∞)."""
        worst = max((value / bound for value, bound in self.excesses(point).values() if value), default=0.0)
        return point / worst if worst > 1 else point

    def to_json(self) -> dict[str, Any]:
        """The set as plain data, for checkpoints."""
        return {**super().to_json(), "k": self.k}

    def _count(self, point: Tensor) -> int:
        return min(self.k, point.numel())

    def _bound(self, point: Tensor) -> float:
        return self.radius * self._count(point)
