"""The report over a family: figures are shown, what is missing is left out, nothing hostile gets through."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from runtime_check.family import render_family


def side(sparsity: float | None, accuracy: float, size: int, latency: float, fronts: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "folder": None if sparsity is None else f"sparsity-{sparsity:g}",
        "accuracy": accuracy,
        "size_bytes": size,
        "latency_ms": {"median": latency},
        "nonzero_parameters": size // 4,
        "fronts": fronts,
    }
    if sparsity is not None:
        row |= {"target_sparsity": sparsity, "drop_points": 1.25, "speedup": {"median": 2.5}, "passed": True}
    return row


DOCUMENT: dict[str, Any] = {
    "baseline": side(None, 0.99, 100_000, 1.0, ["size", "latency"]),
    "members": [
        side(0.5, 0.98, 50_000, 0.9, ["size"]),
        {**side(0.9, 0.9, 9_000, 0.4, ["size", "latency"]), "passed": False, "missed": ["accuracy"]},
    ],
    "verdict": {"passed": False, "warnings": ["the machine was busy"]},
    "stages": [{"name": "train", "seconds": 12.0}],
}


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_figure_is_shown() -> None:
    html = render_family(DOCUMENT)
    shown = (
        "2 cuts of one network, good up to 50.0 % of zeros", "✗ accuracy", "98.0 %", "-1.25 points", "50.0 kB",
        "0.400 ms", "2.50×", "2.25 k", "the machine was busy", "Against sparsity", "Pareto fronts", "dense",
        "on the front 90.0 %: 90.00 % at 9.00 kB", "train",
    )  # fmt: skip
    for text in shown:
        assert text in html, text
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "http-equiv" in html
    assert "<script" not in html


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": None},
        {"members": [3, {}]},
        {"baseline": "x"},
        {"members": [{"target_sparsity": 0.9, "accuracy": "high", "fronts": 3, "missed": 7, "passed": 1}]},
        {"members": [side(0.9, 0.9, 1, 1.0, []), side(0.5, 0.9, 1, 1.0, [])]},
        {"verdict": None},
    ],
)
def test_what_is_missing_or_malformed_is_left_out(change: dict[str, Any]) -> None:
    parser = Balanced()
    parser.feed(render_family({**DOCUMENT, **change}))
    assert parser.open == []


def test_texts_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    members = [{**side(0.5, 0.9, 10, 1.0, [hostile]), "passed": False, "missed": [hostile], "folder": hostile}]
    html = render_family({"members": members, "verdict": {"passed": False, "warnings": [hostile]}})
    assert hostile not in html


def test_names_of_close_points_do_not_overlap() -> None:
    members = [side(q / 10, 0.9, 1000 + q, 1.0 + q / 1000, []) for q in range(1, 6)]
    html = render_family({"members": members})
    picture = html[html.index("Accuracy against latency") :]
    places = re.findall(r'<text x="([\d.]+)" y="(-?[\d.]+)" text-anchor="middle" class="small">\d', picture)
    labels = [(float(x), float(y)) for x, y in places]
    assert len(labels) == 5
    for index, (x, y) in enumerate(labels):
        assert all(abs(x - a) >= 48 or abs(y - b) >= 12 for a, b in labels[:index])
