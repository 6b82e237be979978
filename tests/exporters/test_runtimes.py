"""Other readers of the same file: OpenVINO and onnx's reference evaluator decode the weights too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from torch import nn

from exporters.export import write_model
from exporters.graph import build_graph

ENCODINGS = ["gap", "packed", "auto"]


def openvino_outputs(path: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    # Some processors compute in bfloat16 unless told otherwise.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    return np.array(compiled([samples])[0])


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_openvino_gives_the_outputs_of_the_dense_file(
    sparse_graph: ModelProto, images: torch.Tensor, tmp_path: Path, encoding: str, values: str
) -> None:
    outputs = []
    for name in ("dense", encoding):
        path = tmp_path / f"{name}.onnx"
        write_model(sparse_graph, path, encoding=name, values=values)
        outputs.append(openvino_outputs(path, images.numpy()))
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.fixture(scope="module")
def linear_graph() -> ModelProto:
    """A weight with so many values that codes take half a byte and some of them skip."""
    layer = nn.Linear(96, 160)
    with torch.no_grad():
        layer.weight *= torch.rand(160, 96, generator=torch.Generator().manual_seed(0)) < 0.1
    return build_graph(layer, torch.zeros(2, 96))


@pytest.mark.parametrize("encoding", ["gap", "packed"])
def test_the_reference_evaluator_gives_the_outputs_of_the_dense_file(
    linear_graph: ModelProto, tmp_path: Path, encoding: str
) -> None:
    outputs = []
    samples = np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)
    for name in ("dense", encoding):
        path = tmp_path / f"{name}.onnx"
        write_model(linear_graph, path, encoding=name)
        model = onnx.load(path)
        if name == encoding:
            assert {"CumSum", "Less", "Where", "ScatterElements"} <= {node.op_type for node in model.graph.node}
        outputs.append(ReferenceEvaluator(model).run(None, {"input": samples})[0])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_the_reference_evaluator_reads_a_whole_network(
    sparse_net: nn.Module, sparse_graph: ModelProto, images: torch.Tensor, tmp_path: Path
) -> None:
    write_model(sparse_graph, tmp_path / "net.onnx", encoding="gap")
    outputs = ReferenceEvaluator(onnx.load(tmp_path / "net.onnx")).run(None, {"input": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(outputs[0], sparse_net(images).numpy(), rtol=1e-4, atol=1e-5)


def test_openvino_and_onnxruntime_agree_with_torch(
    sparse_net: nn.Module, sparse_graph: ModelProto, images: torch.Tensor, tmp_path: Path, run
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "net.onnx"
    write_model(sparse_graph, path)
    with torch.no_grad():
        expected = sparse_net(images).numpy()
    for outputs in (run(path, images.numpy()), openvino_outputs(path, images.numpy())):
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
