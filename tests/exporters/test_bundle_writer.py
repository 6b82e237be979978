"""golden.npz and manifest.json: the schema, the hashes, the refusals."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters import ExportError
from exporters.bundle import write_golden, write_manifest

SIDE = {"size_bytes": 10, "parameters": 4, "nonzero_parameters": 2, "macs": 8, "nonzero_macs": None, "sparsity": 0.5}
FIGURES: dict[str, dict[str, Any]] = {"baseline": SIDE, "compressed": SIDE}


def test_golden_is_read_back_without_pickle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, outputs = rng.random((6, 3, 8, 8)), rng.random((6, 10))
    path = write_golden(tmp_path, inputs, outputs, [0, 1, 2, 3, 4, 5])
    with np.load(path, allow_pickle=False) as golden:
        assert sorted(golden.files) == ["inputs", "labels", "outputs"]
        assert (golden["inputs"].dtype, golden["outputs"].dtype) == (np.float32, np.float32)
        assert golden["labels"].dtype == np.int64
        np.testing.assert_array_equal(golden["outputs"], outputs.astype(np.float32))
    assert [item.name for item in tmp_path.iterdir()] == ["golden.npz"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "labels", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(2, int), "same number of samples"),
        (np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, int), "at least one"),
        (np.zeros(2), np.zeros((2, 2)), np.zeros(2, int), "need shapes"),
        (np.zeros((2, 3)), np.zeros((2, 2)), np.zeros(2), "labels: need integers"),
        (np.full((2, 3), np.nan), np.zeros((2, 2)), np.zeros(2, int), "inputs: holds NaN"),
    ],
)
def test_golden_refuses(tmp_path: Path, inputs: Any, outputs: Any, labels: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        write_golden(tmp_path, inputs, outputs, labels)
    assert not list(tmp_path.iterdir())


def test_manifest_hashes_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "report.html").write_bytes(b"<html>")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    path = write_manifest(tmp_path, recipe={"a": [1]}, seed=7, figures=FIGURES, extra={"note": "x"})
    manifest = json.loads(path.read_text())
    assert manifest["schema"] == 1 and manifest["tool"] == "compress-then-export"
    assert manifest["seed"] == 7 and manifest["recipe"] == {"a": [1]} and manifest["note"] == "x"
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in (("model.onnx", b"model"), ("notes.txt", b"mine"), ("report.html", b"<html>"))
    }
    assert set(manifest["versions"]) == {"python", "torch", "onnx", "onnxruntime", "compress-then-export"}
    assert manifest["figures"] == FIGURES
    assert datetime.fromisoformat(manifest["created"]).utcoffset() is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figures": {"baseline": SIDE}}, "figures: 'compressed'"),
        ({"figures": {**FIGURES, "baseline": {**SIDE, "sparsity": float("nan")}}}, r"baseline\.sparsity"),
        ({"recipe": {"a": object()}}, "not JSON data"),
        ({"extra": {"files": {}}}, "extra: 'files'"),
    ],
)
def test_manifest_refuses(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    arguments = {"recipe": {}, "seed": 0, "figures": FIGURES, **changes}
    with pytest.raises(ExportError, match=message):
        write_manifest(tmp_path, **arguments)
    assert not (tmp_path / "manifest.json").exists()


def test_manifest_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"holds no model\.onnx"):
        write_manifest(tmp_path, recipe={}, seed=0, figures=FIGURES)
