"""What a feasible set answers: its vertices, how far a point is outside, and two ways back in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.checks import require

TOLERANCE = 1e-5
"""Relative excess of a norm over its bound that float32 sums of millions of terms may show inside the set."""


def tolerance(dtype: torch.dtype) -> float:
    """Relative excess over a bound that rounding to ``dtype`` leaves inside the set."""
    return max(TOLERANCE, torch.finfo(dtype).eps)


@dataclass(frozen=True, kw_only=True)
class FeasibleSet(ABC):
    """A bounded convex set C of tensors of any shape.

    Attributes:
        radius: size of the set, positive, in the unit of the tensor's entries; each set says which norm it bounds.
    """

    radius: float

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        number = isinstance(self.radius, Real) and not isinstance(self.radius, bool)
        good = number and math.isfinite(self.radius) and self.radius > 0
        require(good, "radius", self.radius, "a positive number")
        object.__setattr__(self, "radius", float(self.radius))

    @abstractmethod
    def lmo(self, direction: Tensor) -> Tensor:
        """The linear minimization oracle: argmin over v in C of ⟨direction, v⟩, a vertex, of the same shape."""

    @abstractmethod
    def project(self, point: Tensor) -> Tensor:
        """The nearest point of C in the Euclidean norm, of the same shape; ``point`` itself where it lies inside."""

    @abstractmethod
    def excesses(self, point: Tensor) -> dict[str, tuple[float, float]]:
        """By name of a bounded quantity: its value at ``point`` and its bound; inside C no value is above its bound."""

    @abstractmethod
    def scale(self, point: Tensor) -> Tensor:
        """``point`` times the largest factor ≤ 1 that takes it into C: the way back in of 001, section 4."""

    def outside(self, point: Tensor) -> str | None:
        """How far ``point`` is outside, in words such as "‖θ‖₁ = 64 where 47.4 is the bound"; None inside."""
        for name, (value, bound) in self.excesses(point).items():
            if not value <= bound * (1 + tolerance(point.dtype)):
                return f"{name} = {value:.4g} where {bound:.4g} is the bound"
        return None

    def to_json(self) -> dict[str, Any]:
        """The set as plain data, for checkpoints."""
        return {"kind": self.kind, "radius": self.radius}
