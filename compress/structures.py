"""What lives or dies as a whole: single weights, filters, blocks of weights, or N of every M neighbours.

A structure turns scores of weights into scores of units, chooses units within a budget, and turns the choice into
a mask that broadcasts to the weight. Weights are [out, in, ...] with out at ``filter_axis``; the other of the
first two axes counts input channels. Interspace coefficients [out, in, n] are treated alike.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.budget import Distribution, allocate, top_mask
from compress.erk import erk_counts

NAMES = "weights, filters, N:M such as 2:4, or block:RxC such as block:4x1"


@dataclass(frozen=True, kw_only=True)
class Structure(ABC):
    """One answer to "which structure lives?"."""

    @abstractmethod
    def units(self, weight: Tensor, filter_axis: int) -> Tensor:
        """One value a unit from one value a weight that is the same within each unit, such as a mask."""

    @abstractmethod
    def scores(self, score: Tensor, filter_axis: int, *, norm: bool = False) -> Tensor:
        """Scores of units from scores of weights: their sum, or with ``norm`` their L2 norm.

        A sum is what a score that is linear in the mask gives a unit (000, section III-A).
        """

    def mask(self, chosen: Tensor, shape: torch.Size, filter_axis: int) -> Tensor:
        """The mask, broadcastable to a weight of ``shape``, of the ``chosen`` units."""
        return chosen

    def choose(
        self,
        scores: Sequence[Tensor],
        shapes: Sequence[torch.Size],
        filter_axes: Sequence[int],
        *,
        sparsity: float,
        distribution: Distribution,
        minimum: int,
    ) -> list[Tensor]:
        """Masks of the best units, one a layer.

        Args:
            scores: importance of the units of each layer; larger lives, ties go to the lower index.
            shapes: shape of each layer's weight.
            filter_axes: axis of output channels of each.
            sparsity: fraction of units to remove.
            distribution: how the budget is spread, see :func:`compress.budget.allocate`; "erk" by layer shapes.
            minimum: units that every layer keeps at least.
        """
        if distribution == "erk":
            counts = erk_counts(shapes, [score.numel() for score in scores], sparsity, minimum=minimum)
            chosen = [top_mask(score, count) for score, count in zip(scores, counts, strict=True)]
        else:
            chosen = allocate(scores, sparsity, distribution=distribution, minimum=minimum)
        return [self.mask(*layer) for layer in zip(chosen, shapes, filter_axes, strict=True)]

    def fitting(self, sparsity: float) -> str | None:
        """Why the structure cannot end at this sparsity, or None."""
        return None

    def check_layers(self, shapes: Sequence[torch.Size], filter_axes: Sequence[int]) -> None:  # noqa: B027 - most fit all
        """Raise ValueError where the structure fits none of the layers."""


@dataclass(frozen=True, kw_only=True)
class Weights(Structure):
    """Every weight for itself."""

    def units(self, weight: Tensor, filter_axis: int) -> Tensor:
        """The weights."""
        return weight

    def scores(self, score: Tensor, filter_axis: int, *, norm: bool = False) -> Tensor:
        """The scores."""
        return score


@dataclass(frozen=True, kw_only=True)
class Filters(Structure):
    """Whole filters of a convolution, rows of a linear layer (003, section 6, structured pruning)."""

    def units(self, weight: Tensor, filter_axis: int) -> Tensor:
        """All axes but ``filter_axis`` of size 1."""
        for axis in range(weight.dim()):
            if axis != filter_axis:
                weight = weight.narrow(axis, 0, 1)
        return weight

    def scores(self, score: Tensor, filter_axis: int, *, norm: bool = False) -> Tensor:
        """All axes but ``filter_axis`` of size 1, so that a mask of this shape broadcasts to the weight."""
        others = [axis for axis in range(score.dim()) if axis != filter_axis]
        if not norm:
            return score.sum(dim=others, keepdim=True)
        norms: Tensor = torch.linalg.vector_norm(score, dim=others, keepdim=True)
        return norms


@dataclass(frozen=True, kw_only=True)
class Blocks(Structure):
    """Blocks of ``rows`` output by ``columns`` input channels at one position of the kernel.

    At the edges of a layer that does not divide into blocks, a unit is what is left of its block.
    """

    rows: int
    columns: int

    def units(self, weight: Tensor, filter_axis: int) -> Tensor:
        """[⌈out / rows⌉, ⌈in / columns⌉, ...], in the order of the weight's axes."""
        return weight[:: self._extent(0, filter_axis), :: self._extent(1, filter_axis)]

    def scores(self, score: Tensor, filter_axis: int, *, norm: bool = False) -> Tensor:
        """Sum or norm over each block."""
        summed = score**2 if norm else score
        for axis in (0, 1):
            extent = self._extent(axis, filter_axis)
            padding = [0, 0] * (summed.dim() - 1 - axis) + [0, -summed.shape[axis] % extent]
            padded = functional.pad(summed, padding)
            summed = padded.unflatten(axis, (-1, extent)).sum(dim=axis + 1)  # type: ignore[no-untyped-call]
        return summed.sqrt() if norm else summed

    def mask(self, chosen: Tensor, shape: torch.Size, filter_axis: int) -> Tensor:
        """The blocks at full size."""
        for axis in (0, 1):
            repeated = chosen.repeat_interleave(self._extent(axis, filter_axis), dim=axis)
            chosen = repeated.narrow(axis, 0, shape[axis])
        return chosen

    def _extent(self, axis: int, filter_axis: int) -> int:
        return self.rows if axis == filter_axis else self.columns

    def check_layers(self, shapes: Sequence[torch.Size], filter_axes: Sequence[int]) -> None:
        """A block that holds all channels of every layer leaves nothing to choose between channels."""
        layers = zip(shapes, filter_axes, strict=True)
        if not any(shape[axis] > self.rows or shape[1 - axis] > self.columns for shape, axis in layers):
            most = max(shape[axis] for shape, axis in zip(shapes, filter_axes, strict=True))
            raise ValueError(
                f"structure: block:{self.rows}x{self.columns} fits no layer, none is larger than it "
                f"(the widest has {most} output channels); take smaller blocks such as block:4x1"
            )


@dataclass(frozen=True, kw_only=True)
class Neighbours(Structure):
    """N:M: of every ``of`` neighbouring input channels, at each position, at least ``keep`` live in the end.

    The budget is the structure's own, 1 − N/M; on a ramp a group keeps max(N, round(M (1 − s))). The last group of
    a layer whose input channels do not divide by M is smaller, and keeps as many as if zeros filled it up.
    """

    keep: int
    of: int

    def units(self, weight: Tensor, filter_axis: int) -> Tensor:
        """The weights."""
        return weight

    def scores(self, score: Tensor, filter_axis: int, *, norm: bool = False) -> Tensor:
        """The scores."""
        return score

    def fitting(self, sparsity: float) -> str | None:
        """It ends at 1 − N/M and nowhere else."""
        own = 1 - self.keep / self.of
        if math.isclose(sparsity, own, abs_tol=1e-3):
            return None
        return f"structure {self.keep}:{self.of} ends at sparsity {own:.4g}; write sparsity={own:.4g}"

    def check_layers(self, shapes: Sequence[torch.Size], filter_axes: Sequence[int]) -> None:
        """Some layer has neighbours."""
        if all(shape[1 - axis] < 2 for shape, axis in zip(shapes, filter_axes, strict=True)):
            raise ValueError(
                f"structure: {self.keep}:{self.of} fits no layer, none has two input channels next to each other"
            )

    def choose(
        self,
        scores: Sequence[Tensor],
        shapes: Sequence[torch.Size],
        filter_axes: Sequence[int],
        *,
        sparsity: float,
        distribution: Distribution,
        minimum: int,
    ) -> list[Tensor]:
        """The best of every group; ``distribution`` and ``minimum`` have nothing to decide."""
        keep = max(self.keep, round(self.of * (1 - sparsity)))
        return [self._best(score, 1 - axis, keep) for score, axis in zip(scores, filter_axes, strict=True)]

    def _best(self, score: Tensor, axis: int, keep: int) -> Tensor:
        moved = score.movedim(axis, -1)
        if bool(torch.isnan(moved).any()):
            raise ValueError("scores: some are NaN; the weights or gradients they come from are not finite")
        size = moved.shape[-1]
        # Below every score, even of what was cut before, so that padding is never chosen before a weight.
        padded = functional.pad(moved, (0, -size % self.of), value=-torch.inf)
        groups: Tensor = padded.unflatten(-1, (-1, self.of))  # type: ignore[no-untyped-call]
        order = groups.argsort(dim=-1, descending=True, stable=True)
        mask = torch.zeros_like(groups, dtype=torch.bool)
        mask.scatter_(-1, order[..., :keep], True)
        return mask.flatten(-2)[..., :size].movedim(-1, axis).contiguous()


def structure_called(name: object) -> Structure:
    """The structure of that name.

    Raises:
        ValueError: there is none.
    """
    if name == "weights":
        return Weights()
    if name == "filters":
        return Filters()
    text = name if isinstance(name, str) else ""
    if (found := re.fullmatch(r"(\d+):(\d+)", text)) and 0 < int(found[1]) < int(found[2]):
        return Neighbours(keep=int(found[1]), of=int(found[2]))
    if (found := re.fullmatch(r"block:(\d+)x(\d+)", text)) and int(found[1]) > 0 and int(found[2]) > 0:
        return Blocks(rows=int(found[1]), columns=int(found[2]))
    raise ValueError(f"structure: {name!r} is not one of {NAMES}")
