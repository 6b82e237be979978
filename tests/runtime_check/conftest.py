"""Tiny ONNX files and bundles, made by hand so that this room is tested without the exporter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

FEATURES, CLASSES = 6, 4

WriteModel = Callable[..., Path]
MakeBundle = Callable[..., Path]


def linear_onnx(
    weight: np.ndarray, *, batch: Any = "batch", features: Any = None, dtype: int = onnx.TensorProto.FLOAT
) -> bytes:
    """A file that computes x·weight, for x [batch, features]."""
    features = weight.shape[0] if features is None else features
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", dtype, [batch, features])],
        [helper.make_tensor_value_info("scores", dtype, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((FEATURES, CLASSES)).astype(np.float32)


@pytest.fixture
def write_model(tmp_path: Path, weight: np.ndarray) -> WriteModel:
    """Write a linear classifier; keywords go to `linear_onnx`."""

    def write(name: str = "a.onnx", values: np.ndarray | None = None, **keywords: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(linear_onnx(weight if values is None else values, **keywords))
        return path

    return write


@pytest.fixture
def make_bundle(tmp_path: Path, weight: np.ndarray) -> MakeBundle:
    """Write a bundle; `change(manifest)` edits the manifest, `files` adds or replaces contents."""

    def make(
        name: str = "bundle",
        *,
        samples: int = 64,
        dense: np.ndarray | None = None,
        model: np.ndarray | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        files: dict[str, bytes] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
        **keywords: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shipped = weight if model is None else model
        inputs = np.random.default_rng(5).standard_normal((samples, FEATURES)).astype(np.float32)
        golden = {"inputs": inputs, "outputs": inputs @ shipped, "labels": (inputs @ weight).argmax(1)}
        np.savez_compressed(folder / "golden.npz", **{**golden, **(arrays or {})})
        (folder / "model.onnx").write_bytes(linear_onnx(shipped, **keywords))
        (folder / "dense.onnx").write_bytes(linear_onnx(weight if dense is None else dense, **keywords))
        for file, content in (files or {}).items():
            (folder / file).write_bytes(content)
        figures = {"size_bytes": 900, "parameters": 24, "nonzero_parameters": 24, "macs": 24}
        figures |= {"nonzero_macs": 24, "sparsity": 0.0}
        manifest = {
            "schema": 1,
            "tool": "compress-then-export",
            "created": "2026-01-02T03:04:05+00:00",
            "files": {file.name: entry(file) for file in folder.iterdir()},
            "recipe": {"compress": [{"method": "dpf", "sparsity": 0.5}]},
            "seed": 0,
            "versions": {},
            "figures": {
                "baseline": figures,
                "compressed": {**figures, "nonzero_parameters": 12, "sparsity": 0.5},
            },
        }
        if change is not None:
            change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


def entry(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
