"""The section of the report on networks that were trained to be cut: sizes of weights, and what one-shot cuts cost."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from runtime_check.formats import percent_text
from runtime_check.markup import amount, cell, dig, figure, number, rows_of, section, table, words
from runtime_check.pictures.curves import Panel, curves
from runtime_check.pictures.magnitudes import Sizes, weight_sizes

Document = Mapping[str, Any]


def cuttable(document: Document) -> str:
    """Histograms of |w|, accuracy against one-shot cuts, and shares of natural sparsity (001, Figure 1)."""
    rows = rows_of(document, "weights")
    sizes = [found for row in rows if (found := _sizes(row)) is not None]
    pictures = [figure(weight_sizes(sizes), "Sizes of weights")] if sizes else []
    if curve := _curves(rows):
        pictures.append(figure(curve, "Test accuracy after one cut of the smallest weights, without retraining"))
    shares = _natural(rows)
    return section(
        "Room for cuts",
        "How the trained networks bear it when their smallest weights are cut at once. Natural sparsity is the "
        "largest cut measured up to which accuracy stays within so many points. One threshold cuts all layers, the "
        "last one too, and statistics of BatchNorm are not measured anew; a stage may do either otherwise.",
        *pictures,
        shares,
    )


def _sizes(row: Document) -> Sizes | None:
    found = dig(row, "magnitudes")
    edges, shares = (_numbers(dig(found, key)) for key in ("edges", "shares"))
    zeros = amount(found, "zeros")
    rising = all(a < b for a, b in pairwise(edges))
    if zeros is None or len(edges) != len(shares) + 1 or not shares or not rising or edges[0] <= 0:
        return None
    return Sizes(name=words(row.get("stage")) or "network", edges=edges, shares=shares, zeros=zeros)


def _curves(rows: list[Document]) -> str:
    """One panel a network, over the cuts of the first; others are shown where theirs are the same."""
    measured = [(words(row.get("stage")) or "network", _points(row)) for row in rows]
    x = [q for q, _ in measured[0][1]] if measured else []
    shown = [(name, points) for name, points in measured if len(points) > 1 and [q for q, _ in points] == x]
    if not shown:
        return ""
    low = min(accuracy for _, points in shown for _, accuracy in points)
    panels = [
        Panel(title=name, values=tuple(100 * a for _, a in points), low=100 * min(low, 0.9), high=100.0, unit=" %")
        for name, points in shown
    ]
    return curves("Accuracy after one-shot cuts", panels, [100 * q for q in x], [""] * len(x), "weights cut, %")


def _points(row: Document) -> list[tuple[float, float]]:
    """(sparsity, accuracy), ascending; empty where they are not."""
    found = [(amount(cut, "sparsity"), amount(cut, "accuracy")) for cut in rows_of(row, "one_shot")]
    points = [(q, a) for q, a in found if q is not None and a is not None]
    return points if all(a[0] < b[0] for a, b in pairwise(points)) else []


def _natural(rows: list[Document]) -> str:
    tolerances: list[float] = []
    listed = []
    for row in rows:
        found = {amount(item, "lost_points"): amount(item, "sparsity") for item in rows_of(row, "natural_sparsity")}
        tolerances = tolerances or [points for points in found if points is not None]
        shares = [found.get(points) for points in tolerances]
        listed.append((words(row.get("stage")), [cell("" if s is None else percent_text(s)) for s in shares]))
    if not tolerances:
        return ""
    header = ["natural sparsity", *(f"within {points:g} points" for points in tolerances)]
    return table(header, listed)


def _numbers(value: object) -> tuple[float, ...]:
    found = [number(item) for item in value] if isinstance(value, list | tuple) else []
    return tuple(item for item in found if item is not None) if None not in found else ()
