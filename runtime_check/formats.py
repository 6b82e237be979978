"""How figures are written for people: the same in the terminal and in the report."""

from __future__ import annotations

import math


def significant(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent for everyday sizes: 0.0412, 1.83, 412."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    value = float(f"{value:.{digits - 1}e}")  # 0.9996 is 1.00, not 1.000
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def bytes_text(size: float) -> str:
    """Decimal bytes: 912 B, 46.7 kB, 5.90 MB."""
    return f"{size:.0f} B" if size < 1000 else _scaled(size, (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)), " ")


def count_text(count: float) -> str:
    """A count: 912, 46.7 k, 11.7 M, 1.81 G."""
    return f"{count:.0f}" if count < 1000 else _scaled(count, (("k", 1e3), ("M", 1e6), ("G", 1e9)), " ")


def ms_text(milliseconds: float) -> str:
    """A latency in ms, in µs below a tenth of one."""
    if milliseconds < 0.1:
        return f"{significant(1000 * milliseconds)} µs"
    return f"{significant(milliseconds)} ms"


def seconds_text(seconds: float) -> str:
    """A duration: 0.42 s, 12.5 s, 3 min 20 s."""
    if seconds < 100:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def percent_text(fraction: float) -> str:
    """A fraction in [0, 1] as percent with one decimal; two where one would round to 100 %."""
    digits = 2 if 0.9995 <= fraction < 1 or 0 < fraction < 0.0005 else 1
    return f"{100 * fraction:.{digits}f} %"


def change_text(before: float, after: float) -> str:
    """How a size changed: `8.5× smaller`, `1.20× larger`, `the same`; empty where a factor says nothing."""
    if before <= 0 or after <= 0:
        return ""
    factor = max(before / after, after / before)
    if factor < 1.005:
        return "the same"
    return f"{factor:.{2 if factor < 2 else 1}f}× {'smaller' if after < before else 'larger'}"


def _scaled(value: float, units: tuple[tuple[str, float], ...], space: str) -> str:
    for index, (unit, scale) in enumerate(units):
        # 999.6 k would read "1000 k"; the next unit takes over where three digits round up to four.
        if value / scale < 999.5 or index == len(units) - 1:
            return f"{significant(value / scale)}{space}{unit}"
    raise AssertionError("units must not be empty")
