"""The section on room for cuts: figures are shown, malformed ones are left out, names are escaped."""

from typing import Any

import pytest

from runtime_check.cuttable import cuttable
from runtime_check.report import render

ROW: dict[str, Any] = {
    "stage": "1-frank_wolfe",
    "magnitudes": {"edges": [1e-4, 1e-3, 1e-2, 0.1], "shares": [0.6, 0.0, 0.25], "zeros": 0.15},
    "one_shot": [{"sparsity": q, "accuracy": a} for q, a in ((0.0, 0.95), (0.5, 0.951), (0.9, 0.62))],
    "natural_sparsity": [{"lost_points": 0.5, "sparsity": 0.5}, {"lost_points": 2.0, "sparsity": 0.8}],
}


def test_it_shows_histogram_curve_and_shares() -> None:
    html = cuttable({"weights": [{**ROW, "stage": "train"}, ROW]})
    assert html in render({"weights": [{**ROW, "stage": "train"}, ROW]})
    for text in ("1-frank_wolfe", "train", "15.0 % zero", "ends at 62 %", "within 0.5 points", "50.0 %", "80.0 %"):
        assert text in html, text
    assert html.count("half of the weights below 0.001") == 4  # of two networks, in the label and in the description


@pytest.mark.parametrize(
    "weights",
    [
        None,
        [],
        [3],
        [{}],
        [{"stage": "x", "magnitudes": {"edges": [1, 2], "shares": [1, 2], "zeros": 0}}],
        [{"stage": "x", "magnitudes": {"edges": [2, 1], "shares": [1], "zeros": 0}}],
        [{"stage": "x", "magnitudes": {"edges": [0, 1], "shares": [1], "zeros": 0}}],
        [{"stage": "x", "magnitudes": {"edges": [0.1, 1], "shares": ["a"], "zeros": 0}}],
        [{"stage": "x", "one_shot": [{"sparsity": 0.5, "accuracy": 1}, {"sparsity": 0.1, "accuracy": 1}]}],
        [{"stage": "x", "one_shot": [{"sparsity": 0.5}]}],
    ],
)
def test_malformed_figures_are_left_out(weights: Any) -> None:
    assert cuttable({"weights": weights}) == ""


def test_names_are_escaped() -> None:
    assert "<script>" not in cuttable({"weights": [{**ROW, "stage": "<script>alert(1)</script>"}]})
