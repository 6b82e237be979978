from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_check.markup import outline
from runtime_check.pictures import curves, distribution, layers, svg
from runtime_check.report import render

VOID = {"meta", "br", "link"}


class Checker(HTMLParser):
    """Collects tags, text and headings, and fails on tags that do not nest."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.headings, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def checked(document):
    page = render(document)
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert not {"script", "link", "iframe", "img", "object"} & set(checker.tags)
    assert not [name for name, _ in checker.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search(r"https?:|url\(|@import|javascript:", page)
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(picture)
        assert "nan" not in picture.lower()
        assert "inf" not in re.sub(r"[a-z]+inf|inf[a-z]+", "", picture.lower())
    return page, checker


def side(scale=1.0):
    return {
        "accuracy": 0.93 * scale,
        "accuracy_ci95": [0.9 * scale, 0.95 * scale],
        "accuracy_samples": 500,
        "latency_ms": {"median": 4.0 * scale, "p10": 3.9 * scale, "p90": 4.4 * scale, "runs": 99, "threads": 1},
        "size_bytes": 1_000_000 * scale,
        "parameters": 270_000,
        "nonzero_parameters": 270_000 * scale,
        "macs": 4e7,
        "nonzero_macs": 4e7 * scale,
        "sparsity": 1 - scale,
        "load_ms": 5.0,
    }


def full():
    stages = [("warm-up", 3), ("dpf", 5)]
    speedup = {"median": 2.0, "ci95": [1.9, 2.1], "stable": True, "threads": 1}
    return {
        "schema": 1,
        "created": "2026-01-02T03:04:05+00:00",
        "baseline": side(),
        "compressed": side(0.5),
        "speedup": speedup,
        "latency_by_threads": [
            {"threads": 1, "baseline": side()["latency_ms"], "compressed": side(0.5)["latency_ms"], "speedup": speedup}
        ],
        "latency_samples": {"baseline": [4.0, 4.1, 4.4], "compressed": [2.0, 2.2, 2.1]},
        "parity": {"max_abs_diff": 1e-6, "max_rel_diff": 1e-6, "argmax_agreement": 1.0, "samples": 64},
        "accuracy": {"drop_ci95": [-1.0, 2.0], "samples": 500},
        "stages": [{"name": "train", "seconds": 12.0}, {"name": "export", "seconds": 0.5}],
        "environment": {"cpu": "Test CPU", "cores": 2, "memory_bytes": 8 << 30, "providers": ["CPUExecutionProvider"]},
        "verdict": {
            "passed": False,
            "gates": [
                {"name": "parity", "limit": 1e-3, "value": 1e-6, "passed": True, "detail": "small"},
                {"name": "speed", "limit": 3, "value": 2.0, "passed": False, "detail": "slow"},
            ],
            "warnings": ["the machine was busy"],
        },
        "recipe": {"model": {"source": "builtin:lenet5"}, "compress": [{"method": "dpf", "sparsity": 0.9}]},
        "layers": [
            {
                "name": f"layer{i}",
                "shape": [8, 4, 3, 3],
                "parameters": 288,
                "nonzero_parameters": 28,
                "sparsity": 0.9,
                "macs": 5000,
                "encoding": "gap",
                "bytes": 180,
                "baseline_shape": [16, 4, 3, 3],
            }
            for i in range(4)
        ],
        "kernels": {
            "claimed": 1,
            "layers": [
                {"name": "first", "operator": "Conv", "sparsity": 0.0, "reason": "too few zeros to gain"},
                {"name": "second", "operator": "Conv", "sparsity": 0.9, "reason": None},
                {"name": "third", "operator": "Gemm", "sparsity": None, "reason": "not float32"},
            ],
        },
        "training": [
            {"stage": s, "epoch": e, "loss": 1 / (e + 1), "accuracy": None if e == 1 else 0.5, "sparsity": 0.1 * e}
            for s, n in stages
            for e in range(n)
        ],
        "masks": [
            {"stage": "dpf", "step": 16 * i, "sparsity": 0.1 * i, "delta": 0.01, "iou": 0.9, "flipping": None}
            for i in range(5)
        ],
    }


SECTIONS = {
    "verdict": "Gates",
    "latency_samples": "Latency",
    "layers": "Layers",
    "kernels": "Sparse kernels",
    "training": "Training",
    "masks": "Masks",
    "stages": "Stages",
    "recipe": "Recipe",
    "environment": "Environment",
}


def test_a_full_document_has_every_section_and_the_verdict():
    page, checker = checked(full())
    assert checker.headings == ["Gates", "Before and after", *list(SECTIONS.values())[1:]]
    for words in ("Not passed: speed", "the machine was busy", "2.00× faster", "2.0× smaller", "2026-01-02 03:04 UTC"):
        assert words in page
    assert "method: dpf" in page
    assert "Of 3 layers of model.onnx 1 ran from their non-zeros." in page
    assert "<td>onnxruntime<small>too few zeros to gain</small></td>" in page
    assert page.startswith("<!doctype html>")
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert page.count('role="img"') == page.count("<svg ") == 11


@pytest.mark.parametrize("missing", SECTIONS)
def test_a_section_without_data_is_left_out(missing):
    document = full()
    del document[missing]
    _, checker = checked(document)
    assert SECTIONS[missing] not in checker.headings
    assert len(checker.headings) == len(SECTIONS)


def test_nothing_at_all_is_still_a_page():
    page, checker = checked({})
    assert checker.headings == []
    assert "Compression report" in page


def test_hostile_texts_stay_texts():
    attack = "</style></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"

    def poison(value):
        if isinstance(value, dict):
            return {key: poison(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        return attack if isinstance(value, str) else value

    document = poison(full())
    document["recipe"][attack] = attack
    document["environment"][attack] = attack
    page, checker = checked(document)
    assert "<script" not in page
    assert any("<script>" in text for text in checker.text)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_malformed_documents_never_break_the_page(data):
    document = full()
    for _ in range(data.draw(st.integers(1, 6))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(junk)
            break
    checked(document)


def test_extreme_figures_are_drawn():
    document = full()
    document["latency_samples"] = {"baseline": [1e-300, 1e300], "compressed": [5.0]}
    document["training"][0]["loss"] = 1e308
    document["training"][1]["loss"] = -1e308
    document["layers"][0]["baseline_shape"] = [10**100, 10**300, 3]
    document["stages"][0]["seconds"] = 1e300
    document["masks"][1]["step"] = 1e300
    checked(document)


def test_layers_that_are_many_are_drawn_by_size_and_listed_in_full():
    document = full()
    document["layers"] = [
        {"name": f"unit{i}", "shape": [i + 1], "parameters": i + 1, "nonzero_parameters": 1} for i in range(300)
    ]
    page, _ = checked(document)
    pictured = re.search(r"<svg[^>]*What is left.*?</svg>", page, re.DOTALL).group()
    assert pictured.count('class="small soft"') == layers.MAX_ROWS
    assert ">unit299<" in pictured
    assert ">unit3<" not in pictured
    assert ">unit3<" in page
    drawn = layers.shown([layers.Layer(name=str(i), baseline=i, stored=i, nonzero=i) for i in range(300)])
    assert [layer.baseline for layer in drawn] == list(range(300 - layers.MAX_ROWS, 300))


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert svg.ticks(0.31, 0.94, 4) == pytest.approx([0.4, 0.6, 0.8])
    assert svg.ticks(3, 3) == [3]
    assert svg.log_ticks(0.4, 6) == pytest.approx([0.5, 1, 2, 5])


def test_long_names_keep_both_ends():
    short = svg.fit("backbone.stage4.block17.conv2.weight", 100, 12)
    assert len(short) <= 15
    assert short.startswith("backb")
    assert short.endswith("weight")


def test_steps_of_stages_are_laid_end_to_end():
    assert curves.end_to_end([16, 32, 48, 16, 32, 8]) == [16, 32, 48, 64, 80, 88]


def test_curves_skip_unknown_values_and_break_between_stages():
    values, stages = (1.0, None, 3.0, 4.0, 5.0), ["a", "a", "a", "b", "b"]
    assert curves._runs(values, stages) == [[0, 2], [3, 4]]
    many = curves._runs([1.0] * 5000, ["a"] * 5000)
    assert len(many) == 1
    assert 400 < len(many[0]) <= 502
    assert many[0][-1] == 4999


def test_histogram_counts_every_timing_on_the_axis():
    before, after = [1.0 + 0.001 * i for i in range(200)], [2.0] * 50
    picture = distribution.latency_distribution(before, after)
    assert "compressed median 2.00 ms of 50 timings" in picture
    assert "beyond the axis" not in picture
    assert "logarithmic" in distribution.latency_distribution([100.0] * 9, [1.0] * 9)
    assert "beyond the axis: 1 slower" in distribution.latency_distribution([1.0] * 300 + [50.0], [1.0] * 9)


def test_outline_reads_like_yaml():
    recipe = {"a": {"b": [1, 2], "c": None, "d": True}, "e": [{"f": 1, "g": {"h": 2}}, "i"], "j": {}, "k": []}
    assert outline(recipe).splitlines() == [
        "a:",
        "  b: [1, 2]",
        "  c: null",
        "  d: true",
        "e:",
        "  - f: 1",
        "    g:",
        "      h: 2",
        "  - i",
        "j: {}",
        "k: []",
    ]
    assert len(outline({str(i): i for i in range(1000)}).splitlines()) == 401


def test_rendering_does_not_change_the_document():
    document = full()
    copy = json.loads(json.dumps(document))
    render(document)
    assert document == copy
