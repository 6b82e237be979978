"""How many units every group keeps, so that a target is met at the least discrepancy.

Every group comes with a curve D_g(w): the discrepancy at the network's output when it alone keeps w units. The sum of
the curves is minimised under a bound on the cost: from the whole network downwards, always the step of the lower
convex hull that costs the least discrepancy per unit of cost saved. For a separable cost that is the Lagrangian
optimum; MACs are products of neighbouring widths, whose present values decide at every step. Under several bounds what
counts is the sum of the fractions that a step saves of the costs still above theirs.
"""

from __future__ import annotations

import math
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


def descend(costs: Costs, bounds: Bounds, hulls: Sequence[Sequence[Point]]) -> list[list[int]]:
    """Width vectors from the whole network down to the narrowest one, the best for their cost.

    Args:
        costs: the cost model.
        bounds: which costs are saved, and how far.
        hulls: for every group its `hull`.
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
        widths[choice] = hulls[choice][at[choice]][0]
        path.append(list(widths))


def first_within(
    path: Sequence[Sequence[int]], costs: Costs, bounds: Bounds, choices: Sequence[Sequence[int]]
) -> list[int]:
    """The widest vector of a path whose costs are at most those fractions of the whole network's.

    Args:
        path: width vectors, each below the one before.
        costs, bounds: what is bounded.
        choices: the widths that every group may take: the step that meets the bounds is made no longer than needed.

    Raises:
        ValueError: even the narrowest one costs more; the message says how much.
    """

    def within(widths: Sequence[int]) -> bool:
        return all(costs.fraction(cost, widths) <= bound for cost, bound in bounds.items())

    for place, widths in enumerate(path):
        if not within(widths):
            continue
        for group, (narrow, wide) in enumerate(zip(widths, path[max(place - 1, 0)], strict=True)):
            for between in sorted((w for w in choices[group] if narrow < w < wide), reverse=True):
                shorter = [*widths[:group], between, *widths[group + 1 :]]
                if within(shorter):
                    return shorter
        return list(widths)
    cost, best = next((cost, left) for cost in bounds if (left := costs.fraction(cost, path[-1])) > bounds[cost])
    raise ValueError(
        f"{cost}: {bounds[cost]} cannot be met; with every group at its narrowest {best:.4f} of them is left "
        "(streams=True, a smaller round_to or fewer exclude patterns may allow more)"
    )


def _turns_up(a: Point, b: Point, c: Point) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
