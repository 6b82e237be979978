"""Before and after: the section of the report that shows what compression did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runtime_check.formats import bytes_text, change_text, count_text, ms_text, percent_text
from runtime_check.markup import amount, cell, dig, figure, interval, legend, rows_of, section, table
from runtime_check.pictures.bars import Side, before_after

Document = Mapping[str, Any]
Row = tuple[str, list[str]]

_SIDES = ("baseline", "compressed")
_COUNTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("size_bytes", "file size", bytes_text),
    ("parameters", "parameters", count_text),
    ("nonzero_parameters", "nonzero parameters", count_text),
    ("macs", "MACs", count_text),
    ("nonzero_macs", "nonzero MACs", count_text),
)

_CARDS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("size_bytes", "file size", bytes_text),
    ("nonzero_parameters", "parameters ≠ 0", count_text),
    ("macs", "MACs", count_text),
    ("nonzero_macs", "MACs ≠ 0", count_text),
)


def comparison(document: Document) -> str:
    """Before and after: pictures of what matters most, then every figure."""
    cards = [_accuracy_card(document), _latency_card(document)]
    cards += [_count_card(document, *card) for card in _CARDS]
    pictures = "".join(cards)
    keys = legend(("before", "dense, before compression"), ("after", "compressed, as it ships")) if pictures else ""
    grid = f'{keys}<div class="cards">{pictures}</div>' if pictures else ""
    rows = [
        *_accuracy_row(document),
        *(row for key, name, style in _COUNTS for row in _count_row(document, key, name, style)),
        *_sparsity_row(document),
        *_latency_rows(document),
        *_load_row(document),
    ]
    return section("Before and after", "", grid, table(["", "dense", "compressed", "change"], rows) if rows else "")


def _pair(document: Document, *keys: str) -> tuple[float, float] | None:
    """The same figure of both sides, or None where one is missing."""
    before, after = (amount(document, side, *keys) for side in _SIDES)
    return (before, after) if before is not None and after is not None else None


def _accuracy_card(document: Document) -> str:
    pair = _pair(document, "accuracy")
    if pair is None:
        return ""
    sides = [
        Side(value=value, label=percent_text(value), interval=interval(dig(document, side, "accuracy_ci95")))
        for side, value in zip(_SIDES, pair, strict=True)
    ]
    return figure(before_after("Accuracy", *sides, top=1.0), "accuracy", _points(pair))


def _latency_card(document: Document) -> str:
    pair = _pair(document, "latency_ms", "median")
    if pair is None:
        return ""
    sides = []
    for side, value in zip(_SIDES, pair, strict=True):
        spread = interval([dig(document, side, "latency_ms", key) for key in ("p10", "p90")])
        sides.append(Side(value=value, label=ms_text(value), interval=spread))
    return figure(before_after("Latency", *sides), "latency", _faster(document.get("speedup")))


def _count_card(document: Document, key: str, name: str, style: Callable[[float], str]) -> str:
    pair = _pair(document, key)
    if pair is None:
        return ""
    before, after = (Side(value=value, label=style(value)) for value in pair)
    return figure(before_after(name, before, after), name, change_text(*pair))


def _accuracy_row(document: Document) -> list[Row]:
    pair = _pair(document, "accuracy")
    if pair is None:
        return []
    cells = []
    for side, value in zip(_SIDES, pair, strict=True):
        ends = interval(dig(document, side, "accuracy_ci95"))
        cells.append(cell(percent_text(value), f"{percent_text(ends[0])} to {percent_text(ends[1])}" if ends else ""))
    samples = amount(document, "compressed", "accuracy_samples")
    drop = interval(dig(document, "accuracy", "drop_ci95"))
    paired = f"{-drop[1]:+.2f} to {-drop[0]:+.2f}".replace("-", "−") if drop else ""
    name = f"accuracy, {samples:.0f} samples" if samples else "accuracy"
    return [(name, [*cells, cell(_points(pair), paired, "change")])]


def _count_row(document: Document, key: str, name: str, style: Callable[[float], str]) -> list[Row]:
    pair = _pair(document, key)
    if pair is None:
        return []
    return [(name, [*(cell(style(value)) for value in pair), cell(change_text(*pair), css="change")])]


def _sparsity_row(document: Document) -> list[Row]:
    pair = _pair(document, "sparsity")
    return [("sparsity (share of zeros)", [*(cell(percent_text(v)) for v in pair), cell("")])] if pair else []


def _latency_rows(document: Document) -> list[Row]:
    """One row for each number of threads."""
    entries = rows_of(document, "latency_by_threads") or [
        {
            "baseline": dig(document, "baseline", "latency_ms"),
            "compressed": dig(document, "compressed", "latency_ms"),
            "speedup": document.get("speedup"),
        }
    ]
    rows: list[Row] = []
    for entry in entries:
        medians = _pair(entry, "median")
        if medians is None:
            continue
        cells = []
        for side, median in zip(_SIDES, medians, strict=True):
            ends = interval([dig(entry, side, key) for key in ("p10", "p90")])
            cells.append(cell(ms_text(median), f"{ms_text(ends[0])} to {ms_text(ends[1])}" if ends else ""))
        threads = amount(entry, "speedup", "threads")
        name = f"latency, {threads:.0f} thread{'' if threads == 1 else 's'}" if threads else "latency"
        ends = interval(dig(entry, "speedup", "ci95"))
        proof = f"{ends[0]:.2f}× to {ends[1]:.2f}×" if ends else ""
        rows.append((name, [*cells, cell(_faster(entry.get("speedup")), proof, "change")]))
    return rows


def _load_row(document: Document) -> list[Row]:
    pair = _pair(document, "load_ms")
    return [("loading the file", [*(cell(ms_text(v)) for v in pair), cell("")])] if pair else []


def _points(pair: tuple[float, float]) -> str:
    """Change of accuracy in percentage points."""
    change = 100 * (pair[1] - pair[0])
    return "unchanged" if abs(change) < 0.005 else f"{change:+.2f} points".replace("-", "−")


def _faster(speedup: object) -> str:
    median = amount(speedup, "median")
    if not median:
        return ""
    if 0.98 < median < 1.02:
        return "as fast"
    return f"{median:.2f}× faster" if median > 1 else f"{1 / median:.2f}× slower"
