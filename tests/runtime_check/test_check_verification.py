from __future__ import annotations

import json

import numpy as np
import pytest

from runtime_check.errors import CheckError
from runtime_check.verification import verify

SIDE = {"accuracy", "accuracy_ci95", "accuracy_samples", "latency_ms", "size_bytes", "parameters"}
SIDE |= {"nonzero_parameters", "macs", "nonzero_macs", "sparsity"}


def gates(document):
    return {gate["name"]: gate for gate in document["verdict"]["gates"]}


def test_the_document_has_the_keys_that_others_build_on(make_bundle):
    folder = make_bundle()
    document = verify(folder, max_drop=0.5, max_latency_ms=1e6, seconds=0.05, threads=(1, 2))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == 1
    for side, file in (("baseline", "dense.onnx"), ("compressed", "model.onnx")):
        assert set(document[side]) >= SIDE
        assert document[side]["size_bytes"] == (folder / file).stat().st_size
        assert set(document[side]["latency_ms"]) >= {"median", "p10", "p90", "runs", "threads"}
        assert 0 < len(document["latency_samples"][side]) <= 500
    assert document["compressed"]["nonzero_parameters"] == 12
    assert set(document["speedup"]) >= {"median", "ci95", "stable", "threads"}
    assert [entry["threads"] for entry in document["latency_by_threads"]] == [1, 2]
    assert document["latency_by_threads"][0]["compressed"] == document["compressed"]["latency_ms"]
    assert set(document["parity"]) == {"max_abs_diff", "max_rel_diff", "argmax_agreement", "samples"}
    assert document["parity"]["samples"] == 64
    assert document["recipe"] == {"compress": [{"method": "dpf", "sparsity": 0.5}]}
    assert document["baseline"]["accuracy"] == 1.0
    assert list(gates(document)) == ["parity", "accuracy", "latency"]
    assert document["verdict"]["passed"]


def test_a_file_that_computes_something_else_misses_parity(make_bundle, weight):
    document = verify(make_bundle(arrays={"outputs": np.zeros((64, 4), np.float32)}), seconds=0.02)
    assert not document["verdict"]["passed"]
    assert not gates(document)["parity"]["passed"]
    assert any("top class" in text for text in document["verdict"]["warnings"])


def test_nan_outputs_miss_parity_and_the_document_stays_json(make_bundle, weight):
    document = verify(make_bundle(model=np.full_like(weight, np.nan)), seconds=0.02)
    assert document["parity"]["max_abs_diff"] is None
    assert document["compressed"]["accuracy"] == 0
    assert not document["verdict"]["passed"]
    json.dumps(document, allow_nan=False)


def test_float16_values_are_judged_by_the_recipe(make_bundle, weight):
    off = {"outputs": None}

    def lossy(manifest):
        manifest["recipe"]["export"] = {"values": "float16"}

    inputs = np.random.default_rng(5).standard_normal((64, len(weight))).astype(np.float32)
    off["outputs"] = inputs @ weight * np.float32(1.004)
    assert not verify(make_bundle("a", arrays=off), seconds=0.02)["verdict"]["passed"]
    assert verify(make_bundle("b", arrays=off, change=lossy), seconds=0.02)["verdict"]["passed"]
    assert verify(make_bundle("c", arrays=off), seconds=0.02, parity_tolerance=0.01)["verdict"]["passed"]


def test_a_drop_is_measured_on_the_sample_or_on_the_data(make_bundle, weight, tmp_path):
    worse = weight.copy()
    worse[:, 0] -= 100
    folder = make_bundle(model=worse)
    document = verify(folder, max_drop=1, seconds=0.02)
    assert document["accuracy"]["source"] == "golden"
    assert document["accuracy"]["lost"] == 64 - round(64 * document["compressed"]["accuracy"]) > 0
    assert not gates(document)["accuracy"]["passed"]

    inputs = np.random.default_rng(6).standard_normal((500, len(weight))).astype(np.float32)
    labels = (inputs @ worse).argmax(1)
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels)
    for data in (tmp_path / "data.npz", str(tmp_path / "data.npz"), iter([(inputs, labels)])):
        document = verify(folder, max_drop=1, data=data, seconds=0.02)
        assert document["accuracy"]["source"] == "data"
        assert document["compressed"]["accuracy"] == 1.0
        assert document["baseline"]["accuracy_samples"] == 500
        assert gates(document)["accuracy"]["passed"]


def test_a_fixed_batch_is_measured_whole_and_said_so(make_bundle):
    document = verify(make_bundle(batch=16, samples=10), seconds=0.02)
    assert document["parity"]["samples"] == 10
    assert any("batches of 16" in text for text in document["verdict"]["warnings"])


def test_a_speed_out_of_reach_is_a_missed_gate_and_no_error(make_bundle):
    document = verify(make_bundle(), min_speedup=1e6, seconds=0.02)
    assert not document["verdict"]["passed"]
    assert gates(document)["parity"]["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": ()}, "threads"),
        ({"threads": 1}, "threads"),
        ({"threads": (0,)}, "threads"),
        ({"seconds": 0}, "seconds"),
        ({"min_speedup": -1}, "min_speedup"),
        ({"parity_tolerance": -1}, "parity_tolerance"),
        ({"data": []}, "no samples"),
        ({"data": "absent.npz"}, "absent"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, make_bundle):
    with pytest.raises(CheckError, match=message):
        verify(make_bundle(), **arguments)


def test_a_hostile_but_hashed_model_is_one_line(make_bundle, weight):
    folder = make_bundle(files={"model.onnx": b"\x08\x07junk"})
    with pytest.raises(CheckError, match=r"model\.onnx is not a usable ONNX file") as caught:
        verify(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckError, match=r"dense\.onnx"):
        verify(make_bundle("other", dense=np.ones((9, 4), np.float32)))
    with pytest.raises(CheckError, match="golden outputs"):
        verify(make_bundle("third", arrays={"outputs": np.ones((64, 5), np.float32)}))
