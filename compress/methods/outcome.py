"""What a method reports of its run, whatever it does to the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from compress.frozen import FrozenValues
from compress.shrink import ShrinkPlan

logger = logging.getLogger(__name__)

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(kw_only=True)
class Outcome:
    """Steps so far, and what people should know.

    The report repeats ``warnings``, which are sentences, and ``findings``, single figures such as λ* of COPS.
    """

    warnings: list[str] = field(default_factory=list)
    findings: dict[str, float] = field(default_factory=dict)
    step: int = 0
    finished: bool = False

    def warn(self, sentence: str) -> None:
        """Say ``sentence`` now, and in the report."""
        self.warnings.append(sentence)
        logger.warning(sentence)

    @property
    def plan(self) -> ShrinkPlan | None:
        """How channels were removed, for methods that do that themselves."""
        return None

    @property
    def frozen(self) -> Mapping[str, FrozenValues]:
        """Where frozen values come from, by weight name; empty for methods that leave no weight frozen."""
        return {}

    @property
    def sparsity(self) -> float:
        """Fraction of units that are masked and therefore zero now."""
        return 0.0
