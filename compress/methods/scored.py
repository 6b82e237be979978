"""Methods whose mask is found once, on attach, by one score or by two of them through COPS."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Self

import torch
from torch import Tensor

from compress.budget import keep_count
from compress.checks import require, require_whole
from compress.cops import cops, similarity
from compress.methods.base import setting
from compress.methods.budgeted import Budgeted
from compress.methods.run import Run
from compress.sampling import Batch, class_balanced, of_classes, pair, undisturbed
from compress.scores import check_score, score_called


@dataclass(frozen=True, kw_only=True)
class ScoredOnce(Budgeted):
    """A method whose units are ranked on some batches before training; subclasses say what becomes of the others."""

    score: str = setting("snip", "magnitude, random, snip, usnip, grasp, synflow or gradient")
    control: str | None = setting(None, "second score that COPS holds the mask to; default: none, score alone decides")
    alpha: float = setting(0.5, "α of COPS in [0, 1): 0 hardly constrains, towards 1 the mask is that of control")
    rounds: int = setting(1, "rounds of scoring and cutting on the way to the sparsity (SynFlow: 100)")
    score_seed: int = setting(0, "draws random scores, and the labels of usnip")
    score_batches: int = setting(100, "batches of training data that a score reads at most")
    per_class: int | None = setting(None, "read so many samples of each class instead (GraSP: 10)")
    classes: tuple[int, ...] | None = setting(None, "classes whose samples a score may read; default: all")
    skip_last_linear: bool = setting(False, "keep the last linear layer dense")

    def check_scores(self) -> None:
        """Raise ValueError naming a wrong setting of scores, COPS or sampling."""
        check_score("score", self.score)
        if self.control is not None:
            check_score("control", self.control)
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        require(number and 0 <= self.alpha < 1, "alpha", self.alpha, "in [0, 1)")
        if self.control is None:
            require(
                self.alpha == ScoredOnce.alpha, "alpha", self.alpha, "of use without a second score; set control too"
            )
        require_whole("score_seed", self.score_seed, 0)
        require_whole("rounds", self.rounds, 1)
        require_whole("score_batches", self.score_batches, 1)
        if self.per_class is not None:
            require_whole("per_class", self.per_class, 1)
        if self.classes is not None:
            several = isinstance(self.classes, (list, tuple, set, range)) and len(self.classes) > 0
            require(several, "classes", self.classes, "a list of at least one class, such as [0, 3]")
            object.__setattr__(self, "classes", tuple(self.classes))
            for label in self.classes:
                require_whole("classes", label, 0, "a list of whole numbers")

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Nothing depends on the length of training."""
        return replace(self)

    def best_masks(self, run: Run) -> list[Tensor]:
        """Masks after ``rounds`` rounds, each scoring the network as pruned so far (Tanaka et al., Algorithm 1)."""
        self.check_budget(run)
        samples, before = self._samples(run), [mask.clone() for mask in run.masks()]
        masks = before
        for number in range(1, self.rounds + 1):
            sparsity = 1.0 - (1.0 - self.sparsity) ** (number / self.rounds)
            target = self._scored(run, self.score, samples)
            if self.control is None:
                masks = self._cut(run, target, sparsity)
            else:
                masks = self._controlled(run, target, self._scored(run, self.control, samples), sparsity)
            run.set_masks(masks)
        run.set_masks(before)  # the caller records the step from these to those
        return masks

    def _cut(self, run: Run, scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
        """Masks of the best units that still live."""
        living = [
            torch.where(self.alive(run, weight), score, -torch.inf)
            for weight, score in zip(run.weights, scores, strict=True)
        ]
        return self.choose(run, living, sparsity)

    def _controlled(self, run: Run, target: list[Tensor], control: list[Tensor], sparsity: float) -> list[Tensor]:
        """Masks of the best units as COPS weighs both scores; notes what they come to.

        COPS is solved for masks that are free but for their size. Where the budget is spread otherwise, or a group or
        layer keeps a minimum, its weighing of the scores is used all the same, and the bound κ may be missed.
        """
        keep = max(1, keep_count(sum(score.numel() for score in target), sparsity))
        solution = cops(target, control, keep=keep, alpha=self.alpha)
        masks = self._cut(run, solution.importance, sparsity)
        chosen, favourite, alone = (
            torch.cat([self.units.units(m, w.filter_axis).flatten() for m, w in zip(found, run.weights, strict=True)])
            for found in (masks, self._cut(run, target, sparsity), self._cut(run, control, sparsity))
        )
        scores = torch.cat([score.flatten() for score in control]).double()
        reached = -float(scores[chosen].sum() / scores.abs().sum())
        run.findings |= {
            "alpha": float(self.alpha),
            "kappa": solution.kappa,
            "control_score": reached,
            "multiplier": solution.multiplier,
            "target_similarity": similarity(chosen, favourite),
            "control_similarity": similarity(chosen, alone),
            "parent_similarity": similarity(favourite, alone),
        }
        if reached > solution.kappa + 1e-9:
            run.warn(
                f"{self.name}: the control score of the mask is {reached:.6g}, above κ = {solution.kappa:.6g}; "
                "COPS holds that bound for the best units of the whole network, and this budget is spread otherwise"
            )
        return masks

    def _scored(self, run: Run, name: str, samples: Sequence[Batch]) -> list[Tensor]:
        scores = score_called(name, seed=self.score_seed)(run.model, run.weights, samples)
        if not any(bool(score.any()) for score in scores):
            raise ValueError(
                f"score: {name} is zero for every weight, so it ranks none before another; a layer that starts at zero "
                "stops every gradient: initialise it otherwise, or take score magnitude or random"
            )
        return [
            self.units.scores(score, weight.filter_axis, norm=name == "magnitude")
            for score, weight in zip(scores, run.weights, strict=True)
        ]

    def _samples(self, run: Run) -> list[Batch]:
        with undisturbed(run.batches):
            return self._read(run)

    def _read(self, run: Run) -> list[Batch]:
        if self.per_class is not None:
            batches = iter(run.batches)
            first = next(batches, None)
            if first is None:
                raise ValueError("batches: there are none; per_class needs (inputs, targets) pairs")
            classes = self.classes or range(_class_count(run, pair(first)[0][:1]))
            return class_balanced(chain([first], batches), per_class=self.per_class, classes=classes)
        if self.classes is None:
            return list(islice(run.batches, self.score_batches))
        samples = list(islice(of_classes(run.batches, self.classes), self.score_batches))
        seen = {int(label) for _, targets in samples for label in targets}
        absent = [label for label in self.classes if label not in seen]
        if not seen:
            raise ValueError(f"classes: no sample of {absent} is in the batches; leave classes out for all")
        if absent:
            run.warn(f"{self.name}: the batches that were read hold no sample of classes {absent}")
        return samples


@torch.no_grad()
def _class_count(run: Run, sample: Tensor) -> int:
    """How many classes the model tells apart."""
    twin = copy.deepcopy(run.model).eval()
    return int(twin(sample.to(run.coefficients(run.weights[0]).device)).shape[1])
