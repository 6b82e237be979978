"""SVG primitives and axes. Every text that goes in is escaped here, and only here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

Scale = Callable[[float], float]

# An average glyph of the page's sans-serif is about this wide, as a share of the font size.
_GLYPH = 0.56


def picture(width: float, height: float, title: str, description: str, parts: Iterable[str]) -> str:
    """Wrap parts into an accessible `<svg>` that scales with the page."""
    told = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    label = escape(f"{title}. {description}")
    size = f"{fix(width)} {fix(height)}"
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="{label}">{told}{"".join(parts)}</svg>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """A line of text with its baseline at (x, y); `anchor` is start, middle or end."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{fix(x)}" y="{fix(y)}"{place}{_class(css)}>{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, css: str, *, radius: float = 0, tip: str = "") -> str:
    """A rectangle; `tip` is shown when a pointer rests on it."""
    corner = f' rx="{fix(radius)}"' if radius else ""
    inside = f"><title>{escape(tip)}</title></rect>" if tip else "/>"
    return (
        f'<rect x="{fix(x)}" y="{fix(y)}" width="{fix(max(width, 0))}" height="{fix(max(height, 0))}"'
        f"{corner}{_class(css)}{inside}"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{fix(x1)}" y1="{fix(y1)}" x2="{fix(x2)}" y2="{fix(y2)}"{_class(css)}/>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    """A polyline; one point becomes a dot."""
    if len(points) == 1:
        (x, y) = points[0]
        return f'<circle cx="{fix(x)}" cy="{fix(y)}" r="2.5"{_class(css + " dot")}/>'
    return f'<polyline points="{" ".join(f"{fix(x)},{fix(y)}" for x, y in points)}"{_class(css)}/>'


def whisker(low: float, high: float, y: float, css: str = "whisker") -> str:
    """A horizontal interval with end marks."""
    strokes = [(low, y, high, y), (low, y - 4, low, y + 4), (high, y - 4, high, y + 4)]
    # A halo below the strokes keeps them apart from the bar they lie on.
    return "".join(line(*stroke, kind) for kind in ("halo", css) for stroke in strokes)


def fix(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def fit(content: str, width: float, size: float) -> str:
    """Shorten text in the middle so that it is about `width` wide at font size `size`; both ends tell."""
    room = max(3, int(width / (size * _GLYPH)))
    if len(content) <= room:
        return content
    tail = (room - 1) // 2
    return f"{content[: room - 1 - tail]}…{content[len(content) - tail :]}"


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map [low, high] to [start, end]; a range without extent maps to the start."""
    extent = high - low
    return lambda value: start + (end - start) * ((value - low) / extent if extent else 0.0)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) between low and high."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two positive numbers."""
    found = []
    for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        found += [factor * 10.0**power for factor in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]


def tick_text(value: float) -> str:
    """A tick's label: as short as it can be told."""
    return "0" if abs(value) < 1e-12 else f"{value:.6g}"


def _class(css: str) -> str:
    return f' class="{css}"' if css else ""
