"""Lottery tickets: train, prune a fifth, rewind, and again until the network is sparse enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from compress.checks import known_steps, require, require_whole
from compress.methods.base import setting
from compress.methods.ranked import Ranked
from compress.methods.run import Run
from compress.prunable import PrunableWeight
from compress.structures import Neighbours
from compress.subspace import Subspace


@dataclass(frozen=True, kw_only=True)
class LotteryTicket(Ranked):
    """Iterative magnitude pruning with rewinding (Frankle & Carbin 2019; Frankle et al. 2020; 002, section 2.3.1).

    After each training the smallest 20 % of the living units are cut, and all that is left, weights, biases and
    normalisation with its statistics, goes back to its values at ``rewind_step`` of the first training.
    ⌈log(1 − q) / log 0.8⌉ trainings find the ticket, each ends with a pruning, and one more trains it: ``trainings``
    counts all of them, 12 at q = 0.9. After pruning k a share 1 − 0.8^k is cut, after the last one exactly q.

    ``step`` counts: after every ``round_steps`` steps it prunes and rewinds, but for the last training. Each training
    begins with a fresh optimizer and learning-rate schedule; an optimizer given to ``step`` forgets its momentum.
    """

    rewind_step: int = setting(0, "t0: step of the first training to whose weights all others go back; 0: the start")
    round_fraction: float = setting(0.2, "share of the living units that each pruning cuts, in (0, 1)")
    round_steps: int | None = setting(None, "optimizer steps of one training; default: those of the stage")

    state_keys: ClassVar[tuple[str, ...]] = ("start",)

    _start: dict[str, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "lottery_ticket"
    summary: ClassVar[str] = "train, cut a fifth, put the weights back, and again; many trainings for one sparse model"
    paper: ClassVar[str] = (
        "Frankle & Carbin 2019, The lottery ticket hypothesis; Frankle et al. 2020, Linear mode connectivity"
    )

    def validate_choice(self) -> None:
        """Check structure, distribution and rounds."""
        if isinstance(self.units, Neighbours):
            raise ValueError(
                f"structure: {self.structure!r} ends at a sparsity of its own, {self.name} goes through many; "
                "take weights, filters or block:RxC, or another method"
            )
        # Shares of layers move with the sparsity under erk: a layer could gain a unit, and nothing may grow back.
        require(self.distribution != "erk", "distribution", self.distribution, "one of global, layer")
        require_whole("rewind_step", self.rewind_step, 0, "a whole number of steps")
        number = isinstance(self.round_fraction, (int, float)) and not isinstance(self.round_fraction, bool)
        require(number and 0 < self.round_fraction < 1, "round_fraction", self.round_fraction, "a fraction in (0, 1)")
        if self.round_steps is not None:
            require_whole("round_steps", self.round_steps, 1, "a whole number of steps")

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Fill ``round_steps`` with the length of one training.

        Raises:
            ValueError: there is no training, or ``round_steps`` is not its length.
        """
        require(total_steps > 0, "round_steps", total_steps, "the length of a training; give it at least one epoch")
        if self.round_steps not in (None, total_steps):
            raise ValueError(
                f"round_steps: {self.round_steps} is not the {total_steps} steps of a training; leave it out"
            )
        return replace(self, round_steps=total_steps)

    @property
    def known_round(self) -> int:
        """``round_steps``.

        Raises:
            ValueError: it was left open, and nobody planned it.
        """
        return known_steps("round_steps", self.round_steps, "the number of optimizer steps of one training")

    @property
    def prunings(self) -> int:
        """⌈log(1 − q) / log(1 − round_fraction)⌉."""
        return math.ceil(math.log1p(-self.sparsity) / math.log1p(-self.round_fraction) - 1e-9)

    @property
    def trainings(self) -> int:
        """One before each pruning, and that of the ticket."""
        return self.prunings + 1

    @property
    def rewinds_next(self) -> bool:
        """Whether the next step is the last of a training that a pruning follows."""
        return self.is_update(self.run.step + 1)

    def sparsity_at(self, step: int) -> float:
        """1 − (1 − round_fraction)^k after pruning k, q after the last."""
        done = step // self.known_round
        return self.sparsity if done >= self.prunings else 1 - (1 - self.round_fraction) ** done

    def is_update(self, step: int) -> bool:
        """At the end of every training but the last."""
        return step > 0 and step % self.known_round == 0 and step // self.known_round <= self.prunings

    def rank(self, run: Run, weight: PrunableWeight) -> Tensor:
        """Magnitude of what lives; what was cut ranks last."""
        return torch.where(self.alive(run, weight), self.magnitude(run, weight), -1.0)

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """Keep the weights to go back to when they come by; after each training, cut."""
        if step == 0:
            require(
                self.rewind_step < self.known_round,
                "rewind_step",
                self.rewind_step,
                f"before the end of a training of {self.known_round} steps; lower it or train longer",
            )
        if step == self.rewind_step:
            object.__setattr__(self, "_start", {name: value.clone() for name, value in _trained(run).items()})
        return super().masks_at(run, step)

    def settle(self, run: Run) -> None:
        """Rewind; not where training stopped within a round and the budget is met by a last cut."""
        if self.is_update(run.step):
            assert self._start is not None  # rewind_step lies in the first training
            for name, value in _trained(run).items():
                value.copy_(self._start[name])

    def refresh(self, run: Run, optimizer: Optimizer) -> None:
        """Momentum belongs to the weights that are gone."""
        if self.is_update(run.step):
            optimizer.state.clear()

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """As for every ranked method; says so if the ticket itself was not fully trained."""
        masks = super().final_masks(run)
        trained = max(0, run.step - self.prunings * self.known_round)
        if run.step >= self.known_round and trained < self.known_round:
            run.warn(
                f"{self.name}: the ticket was trained for {trained} of {self.known_round} steps; "
                f"go on up to {self.trainings} trainings"
            )
        return masks

    def state_dict(self) -> dict[str, Any]:
        """Also the weights to go back to."""
        return {**super().state_dict(), "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Also take over the weights to go back to."""
        super().load_state_dict(state)
        object.__setattr__(self, "_start", state["start"])


def _trained(run: Run) -> dict[str, Tensor]:
    """All that training changes, by name: parameters and statistics, not the masks."""
    masks = {f"{name}.mask" for name, module in run.model.named_modules() if isinstance(module, Subspace)}
    state = run.model.state_dict()
    return {name: value for name, value in state.items() if name not in masks and isinstance(value, Tensor)}
