"""Measured latency as a cost: no formula foretells it, so thinned networks are timed where they are to run.

How they run is not this room's business: a stopwatch is given. Latency depends on widths alone, so any channels will do
for a measurement.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from compress.greedy.costs import Costs
from compress.greedy.groups import Network
from compress.greedy.local import Imitation
from compress.greedy.thinning import shrink_plan
from compress.shrink import apply_plan

log = logging.getLogger(__name__)
Stopwatch = Callable[[nn.Module, nn.Module], float]
"""(thinned network, whole one), both in eval mode on the CPU -> latency of the first over that of the second."""

_MEASUREMENTS = 6
_CLOSE = 0.01  # fraction of the MACs between two neighbouring measurements


class Latency:
    """Timed once for every width vector.

    Args:
        model: the whole network.
        network: its groups.
        stopwatch: what times it.
    """

    def __init__(self, model: nn.Module, network: Network, stopwatch: Stopwatch) -> None:
        self.model = copy.deepcopy(model).cpu().eval()
        self.network, self.stopwatch = network, stopwatch
        self._known: dict[tuple[int, ...], float] = {}

    def of(self, widths: Sequence[int]) -> float:
        """Latency when group g keeps `widths[g]` units, as a fraction of the whole network's."""
        key = tuple(widths)
        if key not in self._known:
            thinned = [
                (group, Imitation(kept=np.arange(width), shares=np.full(width, 1 / width), discrepancy=0.0))
                for group, width in zip(self.network.groups, widths, strict=True)
                if width < group.units
            ]
            plan = shrink_plan(self.model, self.network, thinned, scaled=False)
            self._known[key] = self.stopwatch(apply_plan(copy.deepcopy(self.model), plan), self.model)
            log.info("latency of %s: %.3f of the whole network's", list(widths), self._known[key])
        return self._known[key]

    def widest_within(self, path: Sequence[Sequence[int]], costs: Costs, target: float) -> list[int]:
        """About the widest vector of a path whose latency is at most that fraction, by a few measurements.

        Between two measured vectors latency is taken to be linear in the MACs; the vector where it should reach the
        target is measured next. What is returned was measured, and meets the target.

        Raises:
            ValueError: even the narrowest one takes longer; the message says how long.
        """
        macs = np.array([costs.fraction("macs", widths) for widths in path])
        wide, narrow = 0, len(path) - 1
        slow, fast = 1.0, self.of(path[-1])
        if fast > target:
            raise ValueError(
                f"latency: {target} cannot be met; with every group at its narrowest {fast:.4f} of it is left "
                "(streams=True, a smaller round_to or fewer exclude patterns allow more)"
            )
        for _ in range(_MEASUREMENTS):
            if narrow - wide < 2 or macs[wide] - macs[narrow] < _CLOSE:
                break
            share = (slow - target) / max(slow - fast, 1e-9)
            wanted = macs[wide] + share * (macs[narrow] - macs[wide])
            place = int(np.clip(np.searchsorted(-macs, -wanted), wide + 1, narrow - 1))
            found = self.of(path[place])
            if found <= target:
                narrow, fast = place, found
            else:
                wide, slow = place, found
        return list(path[narrow])
