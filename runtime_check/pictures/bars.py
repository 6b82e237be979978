"""Bars: before and after, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime_check.formats import seconds_text
from runtime_check.pictures.svg import box, fit, linear, picture, text, whisker

_WIDTH = 300.0
_BAR = 18.0


@dataclass(frozen=True, kw_only=True)
class Side:
    """One bar: its length, its label, and the interval drawn over it."""

    value: float
    label: str
    interval: tuple[float, float] | None = None


def before_after(title: str, before: Side, after: Side, *, top: float | None = None) -> str:
    """Two bars from zero on one scale; `top` is the scale's end, the longest bar or whisker by default."""
    sides = (("before", before), ("after", after))
    ends = [side.value for _, side in sides] + [side.interval[1] for _, side in sides if side.interval]
    scale = linear(0, top or max(ends) or 1, 0, _WIDTH - 8)
    parts = []
    for row, (css, side) in enumerate(sides):
        y = row * 46.0
        name = "dense" if css == "before" else "compressed"
        parts += [
            text(0, y + 13, name, "soft"),
            text(_WIDTH, y + 13, side.label, "strong", "end"),
            box(0, y + 19, _WIDTH, _BAR, "track", radius=3),
            box(0, y + 19, max(scale(side.value), 2), _BAR, css, radius=3),
        ]
        if side.interval:
            low, high = (min(max(scale(end), 0), _WIDTH - 1) for end in side.interval)
            parts.append(whisker(low, high, y + 19 + _BAR / 2))
    return picture(_WIDTH, 84, title, f"dense {before.label}, compressed {after.label}", parts)


def stage_bars(stages: Sequence[tuple[str, float]]) -> str:
    """One bar a stage of the run, by seconds."""
    width, label, row = 760.0, 200.0, 26.0
    scale = linear(0, max((seconds for _, seconds in stages), default=0) or 1, 0, width - label - 90)
    parts = []
    for index, (name, seconds) in enumerate(stages):
        y = index * row
        parts += [
            text(label - 10, y + 17, fit(name, label - 10, 13), "", "end"),
            box(label, y + 5, max(scale(seconds), 1), 16, "after", radius=2, tip=name),
            text(label + max(scale(seconds), 1) + 8, y + 17, seconds_text(seconds), "soft"),
        ]
    total = seconds_text(sum(seconds for _, seconds in stages))
    return picture(width, len(stages) * row + 4, "Seconds of each stage", f"{total} in all", parts)
