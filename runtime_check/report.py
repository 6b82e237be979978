"""The report for people: one self-contained HTML page out of the document of report.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from runtime_check.comparison import comparison
from runtime_check.cuttable import cuttable
from runtime_check.formats import change_text, significant
from runtime_check.markup import amount, cell, dig, number, rows_of, table, words
from runtime_check.page import page, warnings_box
from runtime_check.sections import environment, latency, layers, masks, notes, recipe, sparse_kernels, stages, training


def render(document: Mapping[str, Any]) -> str:
    """Render the document of `verify`, with or without what the pipeline adds, as one HTML page.

    No scripts, no network, light and dark by the reader's setting, and printable. Sections whose data are
    missing or malformed are left out. Every text is escaped: names come out of files nobody vouches for.

    Args:
        document: report.json as a mapping (see docs/runtime-check.md); keys that are not known are ignored.
    """
    title = _headline(document)
    parts = [
        f"<header>{_kicker(document)}<h1>{escape(title)}</h1>{_badge(document)}</header>",
        warnings_box(document),
        _gates(document),
        comparison(document),
        latency(document),
        layers(document),
        sparse_kernels(document),
        training(document),
        masks(document),
        cuttable(document),
        stages(document),
        notes(document),
        recipe(document),
        environment(document),
        "<footer>Each figure was measured on the files named model.onnx (compressed) and dense.onnx (before "
        "compression), with onnxruntime on the machine described above.</footer>",
    ]
    return page(title, parts)


def _headline(document: Mapping[str, Any]) -> str:
    """What changed, in one line: size, speed, accuracy."""
    told = []
    size = [amount(document, side, "size_bytes") for side in ("baseline", "compressed")]
    if size[0] and size[1]:
        told.append(change_text(size[0], size[1]).replace("the same", "the same size"))
    speedup = amount(document, "speedup", "median")
    if speedup:
        told.append(_speed_words(speedup))
    before, after = (amount(document, side, "accuracy") for side in ("baseline", "compressed"))
    if before is not None and after is not None:
        told.append(_accuracy_words(100 * (before - after)))
    headline = ", ".join(filter(None, told))
    return headline[:1].upper() + headline[1:] if headline else "Compression report"


def _speed_words(speedup: float) -> str:
    if 0.98 < speedup < 1.02:
        return "as fast as before"
    return f"{significant(speedup)}× faster" if speedup > 1 else f"{significant(1 / speedup)}× slower"


def _accuracy_words(drop: float) -> str:
    if abs(drop) < 0.005:
        return "the same accuracy"
    return f"{abs(drop):.2f} points of accuracy {'lost' if drop > 0 else 'won'}"


def _kicker(document: Mapping[str, Any]) -> str:
    model = words(dig(document, "recipe", "model", "source") or dig(document, "recipe", "model"))
    data = words(dig(document, "recipe", "data", "source") or dig(document, "recipe", "data"))
    methods = [words(row.get("method")) for row in rows_of(dig(document, "recipe"), "compress")]
    told = [
        model,
        f"on {data}" if data else "",
        " then ".join(filter(None, methods)),
        _moment(document.get("created")),
    ]
    content = " · ".join(item for item in told if item)
    return f'<p class="kicker">{escape(content)}</p>' if content else ""


def _moment(value: object) -> str:
    """An ISO time as people write it: 2026-01-31 12:34 UTC."""
    try:
        return datetime.fromisoformat(words(value)).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return ""


def _badge(document: Mapping[str, Any]) -> str:
    passed = dig(document, "verdict", "passed")
    if not isinstance(passed, bool):
        return ""
    if passed:
        return '<p class="verdict pass"><span aria-hidden="true">✓</span> Passed: every gate is met</p>'
    missed = [words(gate.get("name")) for gate in rows_of(dig(document, "verdict"), "gates") if not gate.get("passed")]
    named = f": {', '.join(filter(None, missed))}" if missed else ""
    return f'<p class="verdict fail"><span aria-hidden="true">✗</span> Not passed{escape(named)}</p>'


def _gates(document: Mapping[str, Any]) -> str:
    rows = []
    for gate in rows_of(dig(document, "verdict"), "gates"):
        name, passed = words(gate.get("name")), gate.get("passed") is True
        mark = "✓ met" if passed else "✗ not met"
        result = f'<td class="words"><span class="mark {"pass" if passed else "fail"}">{mark}</span></td>'
        detail = words(gate.get("detail"), 600)
        cells = [result, cell(_limit(name, gate.get("limit"))), cell(_value(name, gate.get("value")))]
        rows.append((name, [*cells, cell(detail[:1].upper() + detail[1:], css="words")]))
    if not rows:
        return ""
    return (
        f"<section><h2>Gates</h2>{table(['gate', 'result', 'limit', 'measured', 'in detail'], rows, 'gates')}</section>"
    )


def _limit(name: str, value: object) -> str:
    return f"{'≥' if name == 'speed' else '≤'} {_value(name, value)}"


def _value(name: str, value: object) -> str:
    figure = number(value)
    if figure is None:
        return "–"
    units = {
        "accuracy": f"{figure:.2f} points",
        "speed": f"{figure:.2f}×",
        "latency": f"{significant(figure)} ms",
    }
    return units.get(name, f"{figure:.2g}")
