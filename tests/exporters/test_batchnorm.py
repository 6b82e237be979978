"""The folding pass on graphs built by hand, where torch's own folding has no part."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters.batchnorm import fold_batchnorm
from exporters.tensors import array_tensor

RNG = np.random.default_rng(0)


def evaluate(model: ModelProto, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def with_norm(
    layer: NodeProto, arrays: dict[str, NDArray[np.float32]], channels: int, shape: list[int], **more: list[NodeProto]
) -> ModelProto:
    norm = helper.make_node("BatchNormalization", ["z", "s", "b", "m", "v"], ["y"], epsilon=1e-3)
    arrays = {
        **arrays,
        "s": normal(channels),
        "b": normal(channels),
        "m": normal(channels),
        "v": RNG.random(channels).astype(np.float32) + np.float32(0.2),
    }
    rank = len(shape)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)]
    if more:
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * rank))
    graph = helper.make_graph(
        [layer, norm],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [array_tensor(name, array) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


CASES = {
    "conv": (helper.make_node("Conv", ["x", "w"], ["z"]), {"w": normal(6, 4, 3, 3)}, 6, [2, 4, 8, 8]),
    "conv with bias": (
        helper.make_node("Conv", ["x", "w", "c"], ["z"], group=2),
        {"w": normal(6, 2, 3, 3), "c": normal(6)},
        6,
        [2, 4, 8, 8],
    ),
    "transposed, grouped": (
        helper.make_node("ConvTranspose", ["x", "w"], ["z"], group=2, strides=[2, 2]),
        {"w": normal(4, 3, 2, 2)},
        6,
        [2, 4, 8, 8],
    ),
    "gemm": (helper.make_node("Gemm", ["x", "w", "c"], ["z"]), {"w": normal(4, 6), "c": normal(6)}, 6, [2, 4]),
    "gemm transposed": (helper.make_node("Gemm", ["x", "w"], ["z"], transB=1), {"w": normal(6, 4)}, 6, [2, 4]),
    "gemm scalar bias": (
        helper.make_node("Gemm", ["x", "w", "c"], ["z"], transB=1),
        {"w": normal(6, 4), "c": normal(1)},
        6,
        [2, 4],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_folded_graph_is_the_same_function(case: str) -> None:
    layer, arrays, channels, shape = CASES[case]
    model = with_norm(layer, arrays, channels, shape)
    inputs = {"x": normal(*shape)}
    expected = evaluate(model, inputs)
    assert fold_batchnorm(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == [layer.op_type]
    assert len(model.graph.initializer) == 2
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(evaluate(model, inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_shared_output_keeps_its_norm() -> None:
    layer, arrays, channels, shape = CASES["conv"]
    model = with_norm(layer, arrays, channels, shape, also=[])
    before = model.SerializeToString()
    assert fold_batchnorm(model.graph) == 0
    assert model.SerializeToString() == before


def test_a_norm_after_something_else_survives() -> None:
    model = with_norm(helper.make_node("Relu", ["x"], ["z"]), {}, 4, [2, 4, 8, 8])
    assert fold_batchnorm(model.graph) == 0
    assert [node.op_type for node in model.graph.node] == ["Relu", "BatchNormalization"]


def test_shared_weights_keep_their_norm() -> None:
    layer, arrays, channels, shape = CASES["conv"]
    model = with_norm(layer, arrays, channels, shape)
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["other"]))
    assert fold_batchnorm(model.graph) == 0
