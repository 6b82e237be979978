"""Accuracy against cost, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime_check.pictures.svg import fix, line, linear, log_ticks, path, picture, text, tick_text, ticks

_WIDTH, _LEFT, _RIGHT = 760.0, 64.0, 730.0
_TOP, _BOTTOM = 30.0, 230.0
_LOG_RATIO = 4.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model: its cost (positive), its accuracy in percent, and whether no other is better in both."""

    name: str
    cost: float
    accuracy: float
    on_front: bool


def pareto(title: str, points: Sequence[Point], unit: str, style: Callable[[float], str]) -> str:
    """Draw points over their cost (logarithmic where the ends are far apart) and the line through the front."""
    costs = [point.cost for point in points]
    low, high = min(costs) * 0.85, max(costs) * 1.15
    logarithmic = high / low > _LOG_RATIO
    x = (
        (lambda cost: linear(math.log(low), math.log(high), _LEFT, _RIGHT)(math.log(cost)))
        if logarithmic
        else linear(low, high, _LEFT, _RIGHT)
    )
    worst, best = min(point.accuracy for point in points), max(point.accuracy for point in points)
    margin = max(0.15 * (best - worst), 0.25)
    y = linear(worst - margin, best + margin, _BOTTOM, _TOP)
    parts = []
    for tick in ticks(worst - margin, best + margin, 5):
        parts += [
            line(_LEFT, y(tick), _RIGHT, y(tick), "grid"),
            text(_LEFT - 8, y(tick) + 4, f"{tick_text(tick)} %", "small soft", "end"),
        ]
    for tick in log_ticks(low, high) if logarithmic else ticks(low, high, 6):
        parts += [
            line(x(tick), _BOTTOM, x(tick), _BOTTOM + 4, "axis"),
            text(x(tick), _BOTTOM + 18, style(tick), "small soft", "middle"),
        ]
    front = sorted((point for point in points if point.on_front), key=lambda point: point.cost)
    if len(front) > 1:
        parts.append(path([(x(point.cost), y(point.accuracy)) for point in front], "curve"))
    places = _labels([(x(point.cost), y(point.accuracy)) for point in points])
    for point, place in sorted(zip(points, places, strict=True), key=lambda pair: pair[0].on_front):  # it lies on top
        css = "after" if point.on_front else "before"
        parts += [
            f'<circle cx="{fix(x(point.cost))}" cy="{fix(y(point.accuracy))}" r="5" class="{css}"/>',
            text(*place, point.name, "small", "middle"),
        ]
    parts.append(text(_RIGHT, _BOTTOM + 36, f"{unit}, logarithmic" if logarithmic else unit, "soft", "end"))
    told = ", ".join(f"{point.name}: {point.accuracy:.2f} % at {style(point.cost)}" for point in front)
    return picture(_WIDTH, _BOTTOM + 42, title, f"on the front {told}", parts)


def _labels(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place above each point, higher where another name is there already."""
    taken: list[tuple[float, float]] = []
    for x, y in points:
        height = y - 10
        while any(abs(x - other) < 48 and abs(height - above) < 12 for other, above in taken):
            height -= 13
        taken.append((x, height))
    return taken
