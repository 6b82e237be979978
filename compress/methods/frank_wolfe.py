"""SFW-pruning: train once inside K-sparse polytopes, and cut to any sparsity afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.checks import require, require_whole
from compress.frank_wolfe import SFW, DynamicLR, KSparsePolytope, k_sparse_sets, sfw_init
from compress.frank_wolfe.tensor_sets import Norm, check_sets
from compress.methods.base import setting
from compress.methods.masked import Masked
from compress.methods.run import Run

logger = logging.getLogger(__name__)

Outside = Literal["error", "scale", "project"]
OUTSIDE: tuple[Outside, ...] = ("error", "scale", "project")

_BELONGS_TO_CUTTING = ("skip_first", "skip_last_linear", "skip_depthwise", "exclude", "interspace")


@dataclass(frozen=True, kw_only=True)
class FrankWolfe(Masked):
    """Train with stochastic Frank-Wolfe so that weights can be cut to any sparsity without retraining (001).

    Every parameter, biases and BatchNorm included, stays in a K-sparse polytope; each step averages it with a vertex
    of K entries, so that most weights become small. Nothing is masked: a one-shot stage cuts afterwards. The method
    brings its own optimizer and learning rate (:class:`compress.frank_wolfe.SFW`, :class:`.DynamicLR`); those of the
    training are not used.
    """

    radius: float = setting(15.0, "τ: length of a polytope's vertices over the tensor's expected initial norm")
    k_fraction: float = setting(0.05, "K as a share of the entries of a tensor, in (0, 1]")
    k_minimum: int = setting(10, "K at least, as far as a tensor has as many entries")
    norm: Norm = setting(
        "expected", "whose initial norm: expected of the layer, that at the start, or by shape as published"
    )
    lr: float = setting(1.0, "first learning rate α")
    momentum: float = setting(0.9, "share of the past in the mean gradient; the paper's ρ is 1 minus this")
    dynamic: bool = setting(True, "move the learning rate with the loss, beside the tenth at each third of training")
    init_iterations: int = setting(0, "iterations of SFW-Init before training; 390 in the paper, 0: none")
    outside: Outside = setting(
        "error", "what a tensor that starts outside its polytope gets: an error, scale or project"
    )

    _sets: dict[Tensor, KSparsePolytope] = field(default_factory=dict, init=False, repr=False, compare=False)

    name: ClassVar[str] = "frank_wolfe"
    summary: ClassVar[str] = (
        "train once inside K-sparse polytopes; one-shot cuts to any sparsity then need no retraining"
    )
    paper: ClassVar[str] = "Lu et al. 2022, Learning pruning-friendly networks via Frank-Wolfe"
    decides: ClassVar[tuple[str, ...]] = (
        "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule", "milestones", "gamma", "warmup_epochs",
    )  # fmt: skip
    cuts: ClassVar[bool] = False

    def validate(self) -> None:
        """Check the settings of sets and steps."""
        check_sets(self.radius, self.k_fraction, self.k_minimum, self.norm)
        number = isinstance(self.lr, (int, float)) and not isinstance(self.lr, bool)
        require(number and 0 < self.lr < float("inf"), "lr", self.lr, "a positive learning rate")
        number = isinstance(self.momentum, (int, float)) and not isinstance(self.momentum, bool)
        require(number and 0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require_whole("init_iterations", self.init_iterations, 0)
        require(self.outside in OUTSIDE, "outside", self.outside, f"one of {', '.join(OUTSIDE)}")
        for key in _BELONGS_TO_CUTTING:
            value = getattr(self, key)
            default = type(self).__dataclass_fields__[key].default
            require(value == default, key, value, f"of use to {self.name}, which cuts nothing; set it where it is cut")

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Nothing depends on the length of training, but there must be one.

        Raises:
            ValueError: there is none.
        """
        if total_steps < 1:
            raise ValueError(
                f"train.epochs: there is no step, and {self.name} does nothing but train; give it an epoch"
            )
        return replace(self)

    def first_mask(self, coefficients: Tensor, filter_axis: int) -> Tensor:
        """One entry a weight."""
        return torch.ones_like(coefficients, dtype=torch.bool)

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """All stay; on attach every tensor gets its polytope."""
        if step == 0:
            trained = {t: name for name, t in run.model.named_parameters() if t.requires_grad}
            sets = k_sparse_sets(
                run.model,
                radius=self.radius,
                k_fraction=self.k_fraction,
                k_minimum=self.k_minimum,
                norm=self.norm,
            )
            sets = {tensor: feasible for tensor, feasible in sets.items() if tensor in trained}
            if not sets:
                raise ValueError("model: no parameter has requires_grad, there is nothing to train")
            self._enter(run, trained, sets)
            object.__setattr__(self, "_sets", sets)
        return None

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """None is cut."""
        object.__setattr__(self, "_sets", {})
        return None

    def refresh(self, run: Run, optimizer: Optimizer) -> None:
        """Warn, once, of an optimizer that knows no polytopes."""
        warning = f"{self.name}: {type(optimizer).__name__} leaves the polytopes; step with own_optimizer()"
        if not isinstance(optimizer, SFW) and warning not in run.warnings:
            run.warn(warning)

    def own_optimizer(self, *, fresh: bool = True) -> Optimizer:
        """SFW over all parameters, after SFW-Init where that is asked for and training is ``fresh``.

        Raises:
            ValueError: the run is finished, or the model was folded.
        """
        run = self.run
        if run.finished:
            raise ValueError(f"{self.name}: finish() was called; attach another method to go on")
        run.check_attached(self.name)
        if fresh and self.init_iterations:
            found = sfw_init(run.model, run.batches, self._sets, lr=self.lr, iterations=self.init_iterations)
            run.findings["sfw_init_first_loss"] = found.losses[0]
            run.findings["sfw_init_last_loss"] = found.losses[-1]
            logger.info("%s: SFW-Init, loss after a step %.4f -> %.4f", self.name, found.losses[0], found.losses[-1])
        named = [(name, tensor) for name, tensor in run.model.named_parameters() if tensor in self._sets]
        return SFW(named, self._sets, lr=self.lr, momentum=self.momentum)

    def own_schedule(self, optimizer: Optimizer, epochs: int) -> DynamicLR:
        """A tenth at each third; with ``dynamic`` also 0.7 or 1.06 as the loss rises or falls."""
        return DynamicLR(optimizer, epochs, dynamic=self.dynamic)

    def _enter(self, run: Run, names: dict[nn.Parameter, str], sets: dict[Tensor, KSparsePolytope]) -> None:
        """Move what starts outside its polytope inside, or say so."""
        moved = {}
        for tensor, name in names.items():
            outside = sets[tensor].outside(tensor.detach())
            if outside is None:
                continue
            if self.outside == "error":
                name = name.replace("parametrizations.weight.original", "weight")
                start = "" if self.norm == "start" else "norm: start, or "
                raise ValueError(
                    f"radius: with {self.radius:g} and k_fraction {self.k_fraction:g} {name} starts outside its "
                    f"polytope, {outside}; raise radius or k_fraction, or set {start}outside: scale"
                )
            moved[tensor] = getattr(sets[tensor], self.outside)(tensor.detach())
        with torch.no_grad():
            for tensor, inside in moved.items():
                tensor.copy_(inside)
        if moved:
            run.warn(
                f"{self.name}: {len(moved)} of {len(sets)} tensors started outside their polytopes and were moved in"
            )
