"""Curves over a run: small panels one below the other, sharing the x axis, stages marked along the top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime_check.pictures.svg import Scale, box, fit, fix, line, linear, path, picture, text, tick_text, ticks

_WIDTH, _LEFT, _RIGHT = 760.0, 64.0, 744.0
_TOP, _PANEL, _GAP = 22.0, 104.0, 30.0
_MAX_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One curve: a value for each record (records with None are skipped), on an axis that may be fixed.

    `low` and `high` fix an end of the axis; a free end follows the values. `dots` marks every value.
    """

    title: str
    values: tuple[float | None, ...]
    low: float | None = None
    high: float | None = None
    unit: str = ""
    dots: bool = False


def curves(title: str, panels: Sequence[Panel], x: Sequence[float], stages: Sequence[str], x_label: str) -> str:
    """Draw panels over `x` (increasing, one number a record); `stages` names the stage of each record."""
    scale = linear(x[0], x[-1], _LEFT, _RIGHT) if len(x) > 1 else (lambda _: (_LEFT + _RIGHT) / 2)
    height = _TOP + len(panels) * (_PANEL + _GAP) + 14
    bottom = height - 14 - _GAP + 8
    parts = _stage_bands(x, stages, scale, bottom)
    for index, panel in enumerate(panels):
        parts += _panel(panel, _TOP + index * (_PANEL + _GAP), x, stages, scale)
    for tick in ticks(x[0], x[-1], 8):
        parts.append(text(scale(tick), bottom + 12, tick_text(tick), "small soft", "middle"))
    parts.append(text(_RIGHT, bottom + 28, x_label, "small soft", "end"))
    told = ", ".join(f"{panel.title} ends at {_last(panel)}" for panel in panels)
    return picture(_WIDTH, height + 6, title, told, parts)


def end_to_end(positions: Sequence[float]) -> list[float]:
    """Positions over the whole run: where a stage counts from the start again, it goes on after the last."""
    found: list[float] = []
    offset = 0.0
    for index, position in enumerate(positions):
        if index and position < positions[index - 1]:
            offset = found[-1]
        found.append(position + offset)
    return found


def _stage_bands(x: Sequence[float], stages: Sequence[str], scale: Scale, bottom: float) -> list[str]:
    """A shaded band behind every second stage, and its name."""
    starts = [index for index in range(len(stages)) if index == 0 or stages[index] != stages[index - 1]]
    edges = [scale(x[0]), *(scale((x[i - 1] + x[i]) / 2) for i in starts[1:]), scale(x[-1])]
    parts = []
    for order, index in enumerate(starts):
        left, right = edges[order], edges[order + 1]
        if order % 2:
            parts.append(box(left, 2, right - left, bottom - 2, "band"))
        if right - left > 24 or len(starts) == 1:
            parts.append(text(left + 3, 13, fit(stages[index], max(right - left, 60), 12), "small strong"))
    return parts


def _panel(panel: Panel, top: float, x: Sequence[float], stages: Sequence[str], scale: Scale) -> list[str]:
    known = [value for value in panel.values if value is not None]
    low = panel.low if panel.low is not None else min(known)
    high = panel.high if panel.high is not None else max(known)
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if panel.low is None else (low, low + 1)
    y = linear(low, high, top + _PANEL, top + 18)
    parts = [text(_LEFT, top + 12, panel.title, "small soft")]
    for tick in ticks(low, high, 4):
        parts += [
            line(_LEFT, y(tick), _RIGHT, y(tick), "grid"),
            text(_LEFT - 8, y(tick) + 4, tick_text(tick) + panel.unit, "small soft", "end"),
        ]
    for run in _runs(panel.values, stages):
        points = [(scale(x[i]), y(min(max(panel.values[i] or 0.0, low), high))) for i in run]
        parts.append(path(points, "curve"))
        parts += [f'<circle cx="{fix(a)}" cy="{fix(b)}" r="4" class="dot"/>' for a, b in points if panel.dots]
    return parts


def _runs(values: Sequence[float | None], stages: Sequence[str]) -> list[list[int]]:
    """Indices of the known values, one list a stretch of one stage, thinned to a few hundred points in all."""
    runs: list[list[int]] = []
    previous = 0
    for index, value in enumerate(values):
        if value is None:
            continue
        if runs and all(stages[between] == stages[previous] for between in range(previous + 1, index + 1)):
            runs[-1].append(index)
        else:
            runs.append([index])
        previous = index
    stride = math.ceil(len(values) / _MAX_POINTS)
    return [run if stride == 1 else sorted({*run[::stride], run[-1]}) for run in runs]


def _last(panel: Panel) -> str:
    value = next((value for value in reversed(panel.values) if value is not None), None)
    return "nothing" if value is None else f"{value:.4g}{panel.unit}"
