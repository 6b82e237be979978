"""Scores by name, as recipes call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.scores.connection import gradient, snip, usnip
from compress.scores.flow import synflow
from compress.scores.gradient_signal import grasp
from compress.scores.magnitude import magnitude
from compress.scores.probe import Batch
from compress.scores.uniform import random
from compress.suggestion import did_you_mean


class Score(Protocol):
    """One tensor a weight, shaped like it, larger is more important; the model is left as it was."""

    def __call__(self, model: nn.Module, weights: Sequence[PrunableWeight], batches: Iterable[Batch]) -> list[Tensor]:
        """Score ``weights`` of ``model`` on ``batches``."""


SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "snip": snip,
    "usnip": usnip,
    "grasp": grasp,
    "synflow": synflow,
    "gradient": gradient,
}


def score_called(name: str) -> Score:
    """The score with this name.

    Raises:
        ValueError: there is none; with a suggestion.
    """
    if name not in SCORES:
        raise ValueError(f"score: there is no {name!r}{did_you_mean(name, SCORES)}")
    return SCORES[name]
