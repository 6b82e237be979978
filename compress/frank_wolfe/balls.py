"""Other feasible sets: the balls of L1, L2 and L∞, and the simplex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.frank_wolfe.set import FeasibleSet, tolerance
from compress.frank_wolfe.shrinkage import clipped_sum


@dataclass(frozen=True, kw_only=True)
class _Ball(FeasibleSet):
    """All tensors of which one norm is at most ``radius``."""

    order: ClassVar[float]
    symbol: ClassVar[str]

    def norm(self, point: Tensor) -> Tensor:
        """The norm that is bounded, accumulated in float64; 0 of an empty tensor."""
        if not point.numel():
            return torch.zeros((), dtype=torch.float64, device=point.device)
        norm: Tensor = torch.linalg.vector_norm(point, self.order, dtype=torch.float64)
        return norm

    def excesses(self, point: Tensor) -> dict[str, tuple[float, float]]:
        """The norm against the radius."""
        return {self.symbol: (float(self.norm(point)), self.radius)}

    def scale(self, point: Tensor) -> Tensor:
        """θ · min(1, radius / norm)."""
        worst = float(self.norm(point)) / self.radius
        return point / worst if worst > 1 else point


@dataclass(frozen=True, kw_only=True)
class L1Ball(_Ball):
    """min ⟨m, v⟩ over ‖v‖₁ ≤ r: one entry ∓r where |m| is largest. The K-sparse polytope with K = 1."""

    kind: ClassVar[str] = "l1"
    order: ClassVar[float] = 1.0
    symbol: ClassVar[str] = "‖θ‖₁"

    def lmo(self, direction: Tensor) -> Tensor:
        """−r · sign(m_i) at the largest |m_i|."""
        flat = direction.reshape(-1)
        largest = flat.abs().topk(min(1, flat.numel())).indices
        vertex = torch.zeros_like(flat)
        vertex[largest] = -self.radius * flat[largest].sign()
        return vertex.view_as(direction)

    def project(self, point: Tensor) -> Tensor:
        """Soft thresholding, with the threshold at which the norm is r."""
        if float(self.norm(point)) <= self.radius:
            return point
        return point.sign() * clipped_sum(point.abs().reshape(-1), self.radius, float("inf")).view_as(point)


@dataclass(frozen=True, kw_only=True)
class L2Ball(_Ball):
    """min ⟨m, v⟩ over ‖v‖₂ ≤ r: −r · m / ‖m‖, the direction of gradient descent."""

    kind: ClassVar[str] = "l2"
    order: ClassVar[float] = 2.0
    symbol: ClassVar[str] = "‖θ‖₂"

    def lmo(self, direction: Tensor) -> Tensor:
        """−r · m / ‖m‖, zero for a zero direction."""
        norm = self.norm(direction)
        factor = torch.where(norm > 0, -self.radius / norm.clamp(min=1e-300), 0.0)
        return (direction.double() * factor).to(direction.dtype)

    def project(self, point: Tensor) -> Tensor:
        """Scaling is the projection here."""
        return self.scale(point)


@dataclass(frozen=True, kw_only=True)
class LInfBall(_Ball):
    """min ⟨m, v⟩ over ‖v‖_∞ ≤ r: −r · sign(m), a step for every entry. The K-sparse polytope with K = n."""

    kind: ClassVar[str] = "linf"
    order: ClassVar[float] = float("inf")
    symbol: ClassVar[str] = "‖θ‖_∞"

    def lmo(self, direction: Tensor) -> Tensor:
        """−r · sign(m)."""
        return -self.radius * direction.sign()

    def project(self, point: Tensor) -> Tensor:
        """Every entry clipped to [−r, r]."""
        return point.clamp(-self.radius, self.radius)


@dataclass(frozen=True, kw_only=True)
class Simplex(FeasibleSet):
    """min ⟨m, v⟩ over v ≥ 0, Σ v = r: all of r at the smallest m. For mixtures and attention, not for weights.

    An empty tensor is never inside: its sum is 0.
    """

    kind: ClassVar[str] = "simplex"

    def lmo(self, direction: Tensor) -> Tensor:
        """r at the smallest entry, one of them where several are."""
        vertex = torch.zeros_like(direction).reshape(-1)
        vertex[direction.reshape(-1).topk(min(1, direction.numel()), largest=False).indices] = self.radius
        return vertex.view_as(direction)

    def project(self, point: Tensor) -> Tensor:
        """max(θ − λ, 0) with the λ at which the entries sum to r."""
        return clipped_sum(point.reshape(-1), self.radius, float("inf")).view_as(point)

    def excesses(self, point: Tensor) -> dict[str, tuple[float, float]]:
        """The largest negative entry, and the distance of the sum from r; bounds are what rounding may leave."""
        slack = tolerance(point.dtype) * self.radius
        return {
            "−min θ": (float((-point).max()) if point.numel() else 0.0, slack),
            "|Σθ − r|": (abs(float(point.sum(dtype=torch.float64)) - self.radius), slack),
        }

    def scale(self, point: Tensor) -> Tensor:
        """The positive part scaled to the sum r; r/n each where there is none: zero itself is outside."""
        positive = point.clamp(min=0.0)
        total = float(positive.sum(dtype=torch.float64))
        if total > 0:
            return positive * (self.radius / total)
        return torch.full_like(point, self.radius / max(1, point.numel()))
