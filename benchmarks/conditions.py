"""Whether this machine is as a measurement needs it: its cores close to each other, and ours alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from core_distance import core_distance_ns
from core_speed import core_milliseconds

LOOKS = 20  # at the cores' speed, before the first time that counts


@dataclass
class Conditions:
    """`apart`: nanoseconds from one core to the other and back, least and most. `alone`: how many times the least time
    of a fixed loop, of all since the start, each core may take for it."""

    apart: tuple[float, float] | None = None
    alone: float | None = None
    least: float = math.inf

    def __post_init__(self) -> None:
        for _ in range(LOOKS if self.alone else 0):
            self._share()

    def _share(self) -> float:
        milliseconds = core_milliseconds()
        self.least = min([self.least, *milliseconds])
        return max(milliseconds, default=math.inf) / self.least

    @property
    def any(self) -> bool:
        return self.apart is not None or self.alone is not None

    def hold(self) -> bool:
        """Look now; without a C compiler nothing is known and nothing holds but no condition at all."""
        if self.apart:
            distance = core_distance_ns()
            if distance is None or not self.apart[0] <= distance <= self.apart[1]:
                return False
        return self.alone is None or self._share() <= self.alone
