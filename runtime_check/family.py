"""The report over a family of models: accuracy, size and latency against sparsity, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from runtime_check.cuttable import cuttable
from runtime_check.formats import bytes_text, count_text, ms_text, percent_text
from runtime_check.markup import amount, cell, dig, figure, legend, number, rows_of, section, table, words
from runtime_check.page import page, warnings_box
from runtime_check.pictures.curves import Panel, curves
from runtime_check.pictures.front import Point, pareto
from runtime_check.sections import environment, recipe, stages, training

Document = Mapping[str, Any]


def render_family(document: Document) -> str:
    """Render the document of a sweep as one self-contained HTML page; see :func:`runtime_check.report.render`."""
    title = _headline(document)
    parts = [
        f"<header><h1>{escape(title)}</h1>{_badge(document)}</header>",
        warnings_box(document),
        _members(document),
        _curves(document),
        _fronts(document),
        cuttable(document),
        training(document),
        stages(document),
        recipe(document),
        environment(document),
        "<footer>Each figure was measured on the files of the named folder, which is a bundle of its own, with "
        "onnxruntime on the machine described above.</footer>",
    ]
    return page(title, parts)


def _headline(document: Document) -> str:
    """How far one can go: the sparsest member that passes its gates."""
    passed = [row for row in rows_of(document, "members") if row.get("passed") is True]
    best = max((share for row in passed if (share := amount(row, "target_sparsity")) is not None), default=None)
    count = len(rows_of(document, "members"))
    if best is None:
        return f"{count} cuts of one network, none passes its gates"
    return f"{count} cuts of one network, good up to {percent_text(best)} of zeros"


def _badge(document: Document) -> str:
    passed = dig(document, "verdict", "passed")
    if not isinstance(passed, bool):
        return ""
    said = "Passed: every member meets its gates" if passed else "Not passed by every member"
    return f'<p class="verdict {"pass" if passed else "fail"}">{"✓" if passed else "✗"} {said}</p>'


def _members(document: Document) -> str:
    rows = []
    for row in _everyone(document):
        latency, drop = amount(row, "latency_ms", "median"), number(row.get("drop_points"))
        size, nonzero = amount(row, "size_bytes"), amount(row, "nonzero_parameters")
        speedup, accuracy = amount(row, "speedup", "median"), amount(row, "accuracy")
        fronts = row.get("fronts")
        gates = {True: "✓ met", False: "✗ " + ", ".join(_texts(row.get("missed")))}.get(row.get("passed"), "")  # type: ignore[arg-type]
        rows.append(
            (
                _name(row),
                [
                    cell("" if accuracy is None else percent_text(accuracy), _change(drop)),
                    cell("" if size is None else bytes_text(size)),
                    cell("" if latency is None else ms_text(latency), "" if speedup is None else f"{speedup:.2f}×"),
                    cell("" if nonzero is None else count_text(nonzero)),
                    cell(", ".join(_texts(fronts))),
                    cell(gates),
                ],
            )
        )
    if not rows:
        return ""
    header = ["cut to", "accuracy", "file size", "latency", "parameters ≠ 0", "on the front of", "gates"]
    return section("Members", "One row a bundle; the first is the network before cutting.", table(header, rows))


def _curves(document: Document) -> str:
    """Accuracy, size and latency over sparsity; the dense network stands at zero, unless a member does."""
    members = [row for row in rows_of(document, "members") if amount(row, "target_sparsity") is not None]
    rows = _everyone(document) if members and amount(members[0], "target_sparsity") else members
    x = [100 * (amount(row, "target_sparsity") or 0.0) for row in rows]
    if len(x) < 2 or x != sorted(set(x)):
        return ""
    panels = [
        Panel(title="accuracy", values=_column(rows, 100, "accuracy"), unit=" %", dots=True),
        Panel(title="file size, kB", values=_column(rows, 1e-3, "size_bytes"), low=0.0, dots=True),
        Panel(title="median latency, ms", values=_column(rows, 1, "latency_ms", "median"), low=0.0, dots=True),
    ]
    shown = [panel for panel in panels if any(value is not None for value in panel.values)]
    if not shown:
        return ""
    picture = curves("Against sparsity", shown, x, [""] * len(x), "weights cut, %")
    return section("Against sparsity", "", figure(picture))


def _fronts(document: Document) -> str:
    everyone = _everyone(document)
    size = _points(everyone, "size", "size_bytes")
    latency = _points(everyone, "latency", "latency_ms", "median")
    pictures = []
    if len(size) > 1:
        pictures.append(figure(pareto("Accuracy against size", size, "file size", bytes_text), "against file size"))
    if len(latency) > 1:
        drawn = pareto("Accuracy against latency", latency, "median latency", ms_text)
        pictures.append(figure(drawn, "against latency"))
    keys = (
        legend(("after", "on the front: none is better in both"), ("before", "another is better")) if pictures else ""
    )
    return section("Pareto fronts", "Accuracy against what it costs.", keys * bool(pictures), *pictures)


def _everyone(document: Document) -> list[Document]:
    baseline = document.get("baseline")
    return [*([baseline] if isinstance(baseline, Mapping) else []), *rows_of(document, "members")]


def _points(rows: Sequence[Document], front: str, *keys: str) -> list[Point]:
    found = []
    for row in rows:
        cost, accuracy = amount(row, *keys), amount(row, "accuracy")
        if cost and accuracy is not None:
            on_front = front in _texts(row.get("fronts"))
            found.append(Point(name=_name(row), cost=cost, accuracy=100 * accuracy, on_front=on_front))
    return found


def _name(row: Document) -> str:
    share = amount(row, "target_sparsity")
    return "dense" if share is None else percent_text(share)


def _change(drop: float | None) -> str:
    return "" if drop is None else f"{0.0 - drop:+.2f} points"


def _column(rows: Sequence[Document], factor: float, *keys: str) -> tuple[float | None, ...]:
    values = (amount(row, *keys) for row in rows)
    return tuple(None if value is None else factor * value for value in values)


def _texts(value: object) -> list[str]:
    return [words(item) for item in value] if isinstance(value, list | tuple) else []
