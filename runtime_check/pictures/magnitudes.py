"""Sizes of weights of trained networks, as histograms over one logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime_check.formats import percent_text
from runtime_check.pictures.svg import box, fit, line, linear, picture, text

_WIDTH, _LEFT, _RIGHT = 760.0, 130.0, 740.0
_ROW = 84.0
_VISIBLE = 1e-3  # bins with a smaller share than this of every network are left out at both ends


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One histogram: ascending positive edges, one more than shares, and the share of exact zeros."""

    name: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    zeros: float


def weight_sizes(found: Sequence[Sizes]) -> str:
    """Draw a row for each network over the part of the axis that holds weights; the last row is the latest."""
    low, high = _range(found)
    scale = linear(math.log10(low), math.log10(high), _LEFT, _RIGHT)
    floor = len(found) * _ROW + 12
    parts = []
    for exponent in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1):
        x = scale(exponent)
        parts += [line(x, 8, x, floor, "grid"), text(x, floor + 18, f"{10.0**exponent:.6g}", "soft", "middle")]
    tallest = max((share for sizes in found for share in sizes.shares), default=0.0) or 1.0
    for row, sizes in enumerate(found):
        bottom = 12 + (row + 1) * _ROW
        css = "after" if row == len(found) - 1 else "before"
        for share, left, right in zip(sizes.shares, sizes.edges, sizes.edges[1:], strict=False):
            if share > 0 and right > low and left < high:
                start, end = scale(math.log10(max(left, low))), scale(math.log10(min(right, high)))
                height = (_ROW - 16) * share / tallest
                parts.append(box(start + 0.5, bottom - height, end - start - 1, height, css, tip=percent_text(share)))
        parts += [
            line(_LEFT, bottom, _RIGHT, bottom, "axis"),
            text(_LEFT - 10, bottom - _ROW / 2 + 4, fit(sizes.name, _LEFT - 14, 13), "", "end"),
        ]
        if sizes.zeros:
            parts.append(
                text(_LEFT - 10, bottom - _ROW / 2 + 20, f"{percent_text(sizes.zeros)} zero", "small soft", "end")
            )
    parts.append(text(_RIGHT, floor + 36, "|w|, logarithmic", "soft", "end"))
    told = "; ".join(f"{sizes.name}: half of the weights below {_middle(sizes):.2g}" for sizes in found)
    return picture(_WIDTH, floor + 42, "Sizes of weights", told, parts)


def _range(found: Sequence[Sizes]) -> tuple[float, float]:
    """The edges around all bins of which one can see something."""
    held = [
        edge
        for sizes in found
        for share, *ends in zip(sizes.shares, sizes.edges, sizes.edges[1:], strict=False)
        if share >= _VISIBLE
        for edge in ends
    ]
    return (min(held), max(held)) if held else (found[0].edges[0], found[0].edges[-1])


def _middle(sizes: Sizes) -> float:
    """The upper edge of the bin in which half of all weights is reached."""
    reached = sizes.zeros
    for share, edge in zip(sizes.shares, sizes.edges[1:], strict=False):
        reached += share
        if reached >= 0.5:
            return edge
    return sizes.edges[-1]
