"""What the stages of a run leave behind for the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.natural_sparsity import magnitudes, natural_sparsity, one_shot_curve
from compress.train import EpochRecord, accuracy

logger = logging.getLogger(__name__)

LOST_POINTS = (0.5, 1.0, 2.0)  # percentage points of accuracy that a cut may cost and count as harmless


@dataclass(kw_only=True)
class Journal:
    """Stages with their seconds, epochs of every training, mask updates, sizes of weights, notes and warnings."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and note how long it took."""
        logger.info("%s ...", name)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.stages.append({"name": name, "seconds": round(seconds, 3)})
        logger.info("%s: done in %.1f s", name, seconds)

    def trained(self, stage: str, records: list[EpochRecord]) -> None:
        """Note the epochs of a training."""
        self.training += [{"stage": stage, **asdict(record)} for record in records]

    def cuttable(
        self, networks: Sequence[tuple[str, nn.Module]], test: Iterable[tuple[Tensor, Tensor]], device: torch.device
    ) -> None:
        """Note sizes of weights and natural sparsity of trained networks, by the stage that trained them.

        They are measured on ``device`` and end on the CPU.
        """
        for stage, model in networks:
            model.to(device)
            curve = one_shot_curve(model, lambda cut: accuracy(cut, test))
            natural = [{"lost_points": p, "sparsity": natural_sparsity(curve, p / 100)} for p in LOST_POINTS]
            self.weights.append(
                {
                    "stage": stage,
                    "magnitudes": asdict(magnitudes(model)),
                    "one_shot": [asdict(cut) for cut in curve],
                    "natural_sparsity": natural,
                }
            )
            model.cpu()
            logger.info("%s: natural sparsity %.0f %%", stage, 100 * natural[0]["sparsity"])
