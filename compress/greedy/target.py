"""When a search stops."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.greedy.allocation import Bounds
from compress.greedy.costs import COSTS

TARGETS = ("macs", "parameters", "size", "latency", "width", "loss_gap", "accuracy_drop")
ROUNDED = ("macs", "parameters", "size", "latency", "width")  # targets whose widths are known before the search
LABELLED = ("loss_gap", "accuracy_drop")  # targets that need labels


@dataclass(frozen=True, kw_only=True)
class Target:
    """When to stop: `kind` is one of `TARGETS`, its value as in `GreedyImitation`.

    further: bounds on other costs that must hold as well, where the kind is a cost.
    """

    kind: str
    value: float
    further: Bounds = field(default_factory=dict)

    @property
    def bounds(self) -> Bounds:
        """Bounds on costs; what is no cost itself goes down by the MACs."""
        for cost in COSTS:
            if cost == self.kind:
                return {cost: self.value, **self.further}
        return {"macs": 0.0}
