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
from compress.cops import cops
from compress.methods.base import setting
from compress.methods.budgeted import Budgeted
from compress.methods.run import Run
from compress.sampling import Batch, class_balanced, of_classes, undisturbed
from compress.scores import SCORES, score_called
from compress.suggestion import did_you_mean


@dataclass(frozen=True, kw_only=True)
class ScoredOnce(Budgeted):
    """A method whose units are ranked on some batches before training; subclasses say what becomes of the others."""

    score: str = setting("snip", "magnitude, random, snip, usnip, grasp, synflow or gradient")
    control: str | None = setting(None, "second score that COPS holds the mask to; default: none, score alone decides")
    alpha: float = setting(0.5, "α of COPS in [0, 1): 0 hardly constrains, towards 1 the mask is that of control")
    rounds: int = setting(1, "rounds of scoring and cutting on the way to the sparsity (SynFlow: 100)")
    score_batches: int = setting(100, "batches of training data that a score reads at most")
    per_class: int | None = setting(None, "read so many samples of each class instead (GraSP: 10)")
    classes: tuple[int, ...] | None = setting(None, "classes whose samples a score may read; default: all")
    skip_last_linear: bool = setting(False, "keep the last linear layer dense")

    def check_scores(self) -> None:
        """Raise ValueError naming a wrong setting of scores, COPS or sampling."""
        for argument, name in (("score", self.score), ("control", self.control)):
            known = name is None if argument == "control" and name is None else name in SCORES
            if not known:
                raise ValueError(f"{argument}: there is no {name!r}{did_you_mean(str(name), SCORES)}")
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        require(number and 0 <= self.alpha < 1, "alpha", self.alpha, "in [0, 1)")
        require_whole("rounds", self.rounds, 1)
        require_whole("score_batches", self.score_batches, 1)
        if self.per_class is not None:
            require_whole("per_class", self.per_class, 1)
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
            require(len(self.classes) > 0, "classes", self.classes, "a list of at least one class")
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
            scores = self._importance(run, samples)
            living = [
                torch.where(self.alive(run, weight), score, -torch.inf)
                for weight, score in zip(run.weights, scores, strict=True)
            ]
            masks = self.choose(run, living, 1.0 - (1.0 - self.sparsity) ** (number / self.rounds))
            run.set_masks(masks)
        run.set_masks(before)  # the caller records the step from these to those
        return masks

    def _importance(self, run: Run, samples: Sequence[Batch]) -> list[Tensor]:
        """Importance of every unit by the score, or by both scores as COPS weighs them."""
        target = self._scored(run, self.score, samples)
        if self.control is None:
            return target
        solution = cops(
            target,
            self._scored(run, self.control, samples),
            keep=max(1, keep_count(sum(score.numel() for score in target), self.sparsity)),
            alpha=self.alpha,
        )
        run.findings |= {
            "alpha": float(self.alpha),
            "kappa": solution.kappa,
            "multiplier": solution.multiplier,
            "target_similarity": solution.target_similarity,
            "control_similarity": solution.control_similarity,
            "parent_similarity": solution.parent_similarity,
        }
        return solution.importance

    def _scored(self, run: Run, name: str, samples: Sequence[Batch]) -> list[Tensor]:
        scores = score_called(name)(run.model, run.weights, samples)
        return [
            self.units.scores(score, weight.filter_axis, norm=name == "magnitude")
            for score, weight in zip(scores, run.weights, strict=True)
        ]

    def _samples(self, run: Run) -> list[Batch]:
        with undisturbed(run.batches):
            return self._read(run)

    def _read(self, run: Run) -> list[Batch]:
        batches = run.batches if self.classes is None else of_classes(run.batches, self.classes)
        if self.per_class is None:
            return list(islice(batches, self.score_batches))
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            raise ValueError("batches: there are none; per_class needs (inputs, targets) pairs")
        classes = self.classes or range(_class_count(run, first[0][:1]))
        return class_balanced(chain([first], batches), per_class=self.per_class, classes=classes)


@torch.no_grad()
def _class_count(run: Run, sample: Tensor) -> int:
    """How many classes the model tells apart."""
    twin = copy.deepcopy(run.model).eval()
    return int(twin(sample.to(run.coefficients(run.weights[0]).device)).shape[1])
