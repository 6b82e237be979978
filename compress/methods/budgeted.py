"""Methods with a budget: how much lives, in which structure, and how it is spread over the layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.budget import DISTRIBUTIONS, Distribution, check_budget, keep_count
from compress.checks import require, require_whole
from compress.methods.base import setting
from compress.methods.masked import Masked
from compress.methods.run import Run
from compress.prunable import PrunableWeight
from compress.structures import NAMES, Filters, Neighbours, Structure, structure_called


@dataclass(frozen=True, kw_only=True)
class Budgeted(Masked):
    """A method that ends at exactly ``sparsity``; subclasses say how the units that live are chosen."""

    sparsity: float = setting(0.9, "fraction of prunable units that end as zero, in [0, 1)")
    structure: str = setting("weights", f"what lives or dies as a whole: {NAMES}")
    distribution: Distribution = setting(
        "global", "one ranking over all layers (global), the same share of each (layer), or more of small layers (erk)"
    )
    minimum_units: int | None = setting(
        None,
        "units every layer keeps at least; default 1 for filters, so that no layer vanishes, else 0",
    )

    all_may_go: ClassVar[bool] = False
    """Whether a sparsity of exactly 1 makes sense."""

    def validate(self) -> None:
        """Check the budget, then the schedule."""
        number = isinstance(self.sparsity, (int, float)) and not isinstance(self.sparsity, bool)
        inside = number and (0 <= self.sparsity < 1 or (self.all_may_go and self.sparsity == 1))
        require(inside, "sparsity", self.sparsity, f"a fraction in [0, 1{']' if self.all_may_go else ')'}")
        misfit = self.units.fitting(self.sparsity)
        if misfit is not None:
            raise ValueError(f"sparsity: {self.sparsity} cannot be reached, {misfit}")
        require(
            self.distribution in DISTRIBUTIONS,
            "distribution",
            self.distribution,
            f"one of {', '.join(DISTRIBUTIONS)}",
        )
        if self.minimum_units is not None:
            require_whole("minimum_units", self.minimum_units, 0)
        self.validate_choice()
        if isinstance(self.units, Neighbours):
            fixed = f"{{}} with structure {self.structure}, which keeps as many of every group; leave it out".format
            require(self.distribution == "global", "distribution", self.distribution, fixed("possible"))
            require(not self.minimum_units, "minimum_units", self.minimum_units, fixed("possible"))

    @abstractmethod
    def validate_choice(self) -> None:
        """Check the settings that say how and when; raise ValueError naming the wrong one."""

    @property
    def units(self) -> Structure:
        """The structure that lives or dies as a whole."""
        return structure_called(self.structure)

    @property
    def minimum(self) -> int:
        """Units that every layer keeps."""
        default = 1 if isinstance(self.units, Filters) else 0
        return default if self.minimum_units is None else self.minimum_units

    def first_mask(self, coefficients: Tensor, filter_axis: int) -> Tensor:
        """All units alive."""
        ones = torch.ones_like(coefficients, dtype=torch.bool)
        # A copy: a view of one entry a filter would keep, and save, a byte for every weight.
        return self.units.mask(self.units.units(ones, filter_axis).clone(), ones.shape, filter_axis)

    def alive(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Which units of one weight live now."""
        return self.units.units(run.subspaces[weight.name].mask, weight.filter_axis)

    def magnitude(self, run: Run, weight: PrunableWeight) -> Tensor:
        """|β| of each unit of one weight: the L2 norm of a filter or block (003, section 6)."""
        return self.units.scores(run.coefficients(weight).abs(), weight.filter_axis, norm=True)

    def check_budget(self, run: Run) -> None:
        """Raise ValueError unless the final budget can be met; better on attach than when a ramp gets there."""
        self.units.check_layers(*_geometry(run))
        sizes = {weight.name: self.alive(run, weight).numel() for weight in run.weights}
        check_budget(list(sizes.values()), self.sparsity, 0 if self.distribution == "layer" else self.minimum)
        if self.distribution != "layer" or not self.minimum_units:
            return
        for name, size in sizes.items():
            share = keep_count(size, self.sparsity)
            if min(size, self.minimum_units) > share:
                raise ValueError(
                    f"minimum_units: {self.minimum_units} is more than the {share} of {size} units that {name} keeps "
                    f"at sparsity {self.sparsity}; lower one of them, or take distribution global or erk"
                )

    def choose(self, run: Run, scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
        """Masks of the best units, from the importance of the units of each weight."""
        shapes, filter_axes = _geometry(run)
        return self.units.choose(
            scores,
            shapes,
            filter_axes,
            sparsity=sparsity,
            distribution=self.distribution,
            minimum=self.minimum,
        )


def _geometry(run: Run) -> tuple[list[torch.Size], list[int]]:
    return [run.coefficients(weight).shape for weight in run.weights], [weight.filter_axis for weight in run.weights]
