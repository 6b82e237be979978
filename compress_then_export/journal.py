"""What the stages of a run leave behind for the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from compress.train import EpochRecord

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Journal:
    """Stages with their seconds, epochs of every training, mask updates, notes and warnings."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
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
