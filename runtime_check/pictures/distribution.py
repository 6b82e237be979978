"""Latency of every timing of both models, as two histograms over one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runtime_check.formats import ms_text
from runtime_check.pictures.svg import Scale, box, line, linear, log_ticks, picture, text, tick_text, ticks

_WIDTH, _LEFT, _RIGHT = 760.0, 100.0, 740.0
_ROW, _BINS = 96.0, 72
# Beyond this ratio of the ends a linear axis would squeeze the quicker model into one bin.
_LOG_RATIO = 6.0
_CLOSE = 0.75


def latency_distribution(before: Sequence[float], after: Sequence[float]) -> str:
    """Draw two rows of histogram, milliseconds on the x axis (logarithmic where the two are far apart).

    The slowest half percent of both is left out of the axis so that one hiccup does not flatten the picture;
    the description says how many timings that are.
    """
    everything = sorted([*before, *after])
    low, high = everything[0], everything[max(0, math.ceil(0.995 * len(everything)) - 1)]
    if high <= low:
        low, high = 0.98 * low, 1.02 * high
    logarithmic = high / low > _LOG_RATIO
    margin = 0.05 * (high - low)
    if logarithmic:
        low, high = low / 1.08, high * 1.08
    else:
        # From zero, lengths compare; only two models of nearly one speed are worth a closer look.
        low, high = 0.0 if low < _CLOSE * high else low - margin, high + margin
    scale = _axis(low, high, logarithmic)
    floor = 2 * _ROW + 16
    parts = []
    for tick in log_ticks(low, high) if logarithmic else ticks(low, high, 7):
        parts += [
            line(scale(tick), 8, scale(tick), floor, "grid"),
            text(scale(tick), floor + 18, tick_text(tick), "soft", "middle"),
        ]
    for row, (css, name, samples) in enumerate((("before", "dense", before), ("after", "compressed", after))):
        parts += _histogram(samples, css, name, 8 + (row + 1) * _ROW, scale, high)
    unit = "ms a call, logarithmic" if logarithmic else "ms a call"
    parts.append(text(_RIGHT, floor + 36, unit, "soft", "end"))
    beyond = sum(value > high for value in everything)
    return picture(
        _WIDTH,
        floor + 42,
        "Latency distribution",
        f"dense median {ms_text(_median(before))} of {len(before)} timings, "
        f"compressed median {ms_text(_median(after))} of {len(after)} timings"
        + (f"; beyond the axis: {beyond} slower ones" if beyond else ""),
        parts,
    )


def _axis(low: float, high: float, logarithmic: bool) -> Scale:
    if not logarithmic:
        return linear(low, high, _LEFT, _RIGHT)
    straight = linear(math.log(low), math.log(high), _LEFT, _RIGHT)
    return lambda value: straight(math.log(value))


def _histogram(samples: Sequence[float], css: str, name: str, floor: float, scale: Scale, high: float) -> list[str]:
    width = (_RIGHT - _LEFT) / _BINS
    counts = [0] * _BINS
    for value in samples:
        if value <= high:
            counts[min(_BINS - 1, int((scale(value) - _LEFT) / width))] += 1
    tallest = max(counts) or 1
    room = _ROW - 30
    bars = [
        box(
            _LEFT + index * width + 0.5,
            floor - room * count / tallest,
            width - 1,
            room * count / tallest,
            css,
        )
        for index, count in enumerate(counts)
        if count
    ]
    middle = _median(samples)
    x = min(scale(middle), _RIGHT) if middle <= high else _RIGHT
    anchor = "end" if x > _RIGHT - 130 else "start"
    return [
        *bars,
        line(_LEFT, floor, _RIGHT, floor, "axis"),
        line(x, floor - room - 14, x, floor, "median"),
        text(
            x + (6 if anchor == "start" else -6),
            floor - room - 6,
            f"median {ms_text(middle)}",
            "strong",
            anchor,
        ),
        text(_LEFT - 10, floor - room / 2 + 4, name, "", "end"),
    ]


def _median(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
