"""How many units every group keeps, so that a target is met at the least discrepancy.

Every group comes with a curve D_g(w): the discrepancy at the network's output when it alone keeps w units. The sum of
the curves is minimised under a bound on the cost: from the whole network downwards, always the step of the lower
convex hull that costs the least discrepancy per unit of cost saved. For a separable cost that is the Lagrangian
optimum; MACs are products of neighbouring widths, whose present values decide at every step. Under several bounds what
counts is the sum of the fractions that a step saves of the costs still above theirs.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.greedy.costs import Cost, Costs

Vector = NDArray[np.float64]
_FINEST = 64
Point = tuple[int, float]  # width, discrepancy
Bounds = Mapping[Cost, float]  # fractions of the whole network's costs


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Which widths a group may take.

    units: all of them; always allowed.
    channels: output channels of a layer that one unit stands for.
    round_to: other widths are multiples of this many channels, and few enough to be told apart (64 of them).
    """

    units: int
    channels: int
    round_to: int

    def widths(self) -> list[int]:
        """Ascending; at least one."""
        step = self.round_to // math.gcd(self.round_to, self.channels)
        step *= -(-self.units // (step * _FINEST))
        return [*range(step, self.units, step), self.units]


def hull(curve: Mapping[int, float], allowed: Sequence[int]) -> list[Point]:
    """The lower convex hull of a curve over the allowed widths, from the widest to the narrowest.

    A width may take the solution of a narrower one, so the curve is first made falling. The whole group has D = 0.
    """
    best, points = np.inf, []
    sizes = sorted(curve)
    for width in allowed:
        best = min([best, *(curve[size] for size in sizes if size <= width)])
        points.append((width, best))
    points[-1] = (allowed[-1], 0.0)
    below: list[Point] = []
    for width, value in points:
        if not np.isfinite(value):
            continue
        while len(below) > 1 and _turns_up(below[-2], below[-1], (width, value)):
            below.pop()
        below.append((width, value))
    return below[::-1]


def descend(
    costs: Costs, bounds: Bounds, hulls: Sequence[Sequence[Point]], choices: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Width vectors from the whole network down to the narrowest one, the best for their cost.

    Args:
        costs: the cost model.
        bounds: which costs are saved, and how far.
        hulls: for every group its `hull`.
        choices: the widths that every group may take; a step between two points of its hull passes those between.
    """
    at = [0] * len(hulls)
    widths = [points[0][0] for points in hulls]
    path = [list(widths)]
    while True:
        over = [cost for cost in bounds if costs.fraction(cost, widths) > bounds[cost]] or list(bounds)
        saved = np.sum([costs.savings(cost, widths) / costs.of(cost, costs.full) for cost in over], axis=0)
        best, choice = np.inf, -1
        for group, points in enumerate(hulls):
            if at[group] + 1 < len(points):
                (wide, low), (narrow, high) = points[at[group]], points[at[group] + 1]
                price = (high - low) / max(saved[group] * (wide - narrow), 1e-30)
                if price < best:
                    best, choice = price, group
        if choice < 0:
            return path
        at[choice] += 1
        wide, narrow = widths[choice], hulls[choice][at[choice]][0]
        for width in sorted((w for w in choices[choice] if narrow <= w < wide), reverse=True):
            widths[choice] = width
            path.append(list(widths))


def first_within(path: Sequence[Sequence[int]], costs: Costs, bounds: Bounds) -> list[int]:
    """The widest vector of a path whose costs are at most those fractions of the whole network's.

    Args:
        path: width vectors, each below the one before.
        costs, bounds: what is bounded.

    Raises:
        ValueError: even the narrowest one costs more; the message says how much.
    """

    def within(place: int) -> bool:
        return all(costs.fraction(cost, path[place]) <= bound for cost, bound in bounds.items())

    place = bisect_left(range(len(path)), True, key=within)
    if place < len(path):
        return list(path[place])
    cost, best = next((cost, left) for cost in bounds if (left := costs.fraction(cost, path[-1])) > bounds[cost])
    raise ValueError(
        f"{cost}: {bounds[cost]} cannot be met; with every group at its narrowest {best:.4f} of them is left "
        "(streams=True, a smaller round_to or fewer exclude patterns may allow more)"
    )


def _turns_up(a: Point, b: Point, c: Point) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
