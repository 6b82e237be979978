"""Scores by name, as recipes call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from compress.prunable import PrunableWeight
from compress.sampling import Batch
from compress.scores.connection import gradient, snip, usnip
from compress.scores.flow import synflow
from compress.scores.gradient_signal import grasp
from compress.scores.magnitude import magnitude
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


_DRAWN: dict[str, Callable[..., list[Tensor]]] = {"random": random, "usnip": usnip}


def check_score(argument: str, name: object) -> None:
    """Raise ValueError naming ``argument``, with a suggestion, unless there is a score called ``name``."""
    if not isinstance(name, str) or name not in SCORES:
        raise ValueError(f"{argument}: there is no {name!r}{did_you_mean(str(name), SCORES)}")


def score_called(name: str, *, seed: int = 0) -> Score:
    """The score with this name; ``seed`` draws what is random in it, of random itself and the labels of usnip.

    Raises:
        ValueError: there is none; with a suggestion.
    """
    check_score("score", name)
    return partial(_DRAWN[name], seed=seed) if name in _DRAWN else SCORES[name]
