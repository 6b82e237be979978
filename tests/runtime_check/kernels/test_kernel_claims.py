"""What is claimed, what is joined to it, and what stays with onnxruntime and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from kernel_files import assert_close, network, open_model, sparse
from onnx import helper, numpy_helper

from runtime_check.kernels import provider

RNG = np.random.default_rng(5)
SPARSE = sparse(RNG, 16, 8, 3, 3)
IMAGE = {"x": ["n", 8, 10, 10]}


def conv(output: str = "y", weight: str = "w", **attributes: Any) -> Any:
    return helper.make_node("Conv", ["x", weight], [output], **{"pads": [1, 1, 1, 1], **attributes})


def reasons(content: bytes, **settings: str) -> list[str | None]:
    return [layer.reason for layer in open_model(content, **{"claim": "sparse", **settings}).layers]


def test_sparse_layers_are_claimed_and_dense_ones_are_not() -> None:
    weight = sparse(RNG, 32, 16, 3, 3)
    dense = RNG.standard_normal(weight.shape).astype(np.float32)
    nodes = [conv("a"), conv("b", "d"), helper.make_node("Add", ["a", "b"], ["y"])]
    opened = open_model(network(nodes, {"w": weight, "d": dense}, {"x": ["n", 16, 24, 24]}), claim="sparse")
    found = {layer.name: layer for layer in opened.layers}
    assert {name: layer.reason for name, layer in found.items()} == {"a": None, "b": "not sparse enough"}
    assert (found["a"].operator, found["a"].nonzeros, found["a"].weights) == ("Conv", np.count_nonzero(weight), 4608)
    assert found["a"].sparsity == pytest.approx(1 - np.count_nonzero(weight) / 4608)
    assert found["a"].claimed
    assert found["b"].sparsity == 0


@pytest.mark.parametrize(
    ("attributes", "weight", "reason"),
    [
        ({"group": 2}, sparse(RNG, 16, 4, 3, 3), "grouped convolution"),
        ({}, sparse(RNG, 4, 8, 1, 1), "too small"),
    ],
)
def test_what_is_not_covered_stays_with_onnxruntime(attributes: Any, weight: np.ndarray, reason: str) -> None:
    content = network([conv(**attributes)], {"w": weight}, IMAGE)
    assert reasons(content) == [reason]
    x = RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)
    assert_close(open_model(content)(x=x), open_model(content, with_kernels=False)(x=x))


def test_a_bias_that_is_no_row_is_refused_as_by_onnxruntime() -> None:
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "b": np.zeros((16, 1), np.float32)}
    content = network([helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)], constants, IMAGE)
    opened = open_model(content)
    assert [layer.reason for layer in opened.layers] == ["bias is not one constant per output channel"]
    with pytest.raises(Exception, match="1D tensor"):
        opened(x=RNG.standard_normal((2, 8, 10, 10)).astype(np.float32))


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 5)])
def test_automatic_padding_is_that_of_onnxruntime(kind: str, stride: int, kernel: tuple[int, int]) -> None:
    weight = {"w": sparse(RNG, 16, 8, *kernel)}
    content = network([conv(auto_pad=kind, pads=None, strides=[stride] * 2)], weight, {"x": ["n", 8, "h", "w"]})
    opened = open_model(content)
    assert opened.layers[0].claimed == (stride == 1 or kind == "VALID")
    for size in ([10, 11], [7, 9]):
        x = RNG.standard_normal((2, 8, *size)).astype(np.float32)
        assert_close(opened(x=x), open_model(content, with_kernels=False)(x=x))


def test_layers_of_the_same_name_in_several_branches_are_all_reported() -> None:
    branches = {}
    weights = {"then": sparse(RNG, 32, 16, 3, 3), "else": sparse(RNG, 32, 16, 3, 3, density=1)}
    for name, weight in weights.items():
        node = helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])
        output = helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None)
        branches[f"{name}_branch"] = helper.make_graph(
            [node], "branch", [], [output], [numpy_helper.from_array(weight, "w")]
        )
    which = helper.make_node("Greater", ["mean", "zero"], ["which"])
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0), which]
    nodes += [helper.make_node("If", ["which"], [output], **branches) for output in ("a", "b")]
    nodes.append(helper.make_node("Add", ["a", "b"], ["y"]))
    opened = open_model(network(nodes, {"zero": np.float32(0)}, {"x": ["n", 16, 24, 24]}), claim="sparse")
    assert {layer.name for layer in opened.layers} == {"conv"}
    assert sorted(layer.reason or "" for layer in opened.layers) == ["", "", *["not sparse enough"] * 2]


def test_layers_claimed_before_a_function_was_dissolved_are_reported() -> None:
    """Onnxruntime dissolves the HardSwish that it was left with, and then asks about the rest of the graph anew."""
    constants = {
        "d": sparse(RNG, 32, 16, 3, 3, density=1),
        "w": sparse(RNG, 32, 32, 3, 3),
        "v": sparse(RNG, 32, 32, 3, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "d"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["a"], ["b"]),
    ]
    nodes += [helper.make_node("Conv", ["b", "w"], ["c"], pads=[1, 1, 1, 1])]
    nodes += [helper.make_node("Conv", ["c", "v"], ["y"], pads=[1, 1, 1, 1])]
    opened = open_model(network(nodes, constants, {"x": ["n", 16, 32, 32]}), claim="sparse")
    assert sorted(layer.reason or "" for layer in opened.layers) == ["", "", "not sparse enough"]


def test_layers_of_functions_are_reported_once() -> None:
    body = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Block", ["x", "w"], ["y"], body, opset)
    nodes = [conv("a"), helper.make_node("Block", ["x", "v"], ["b"], domain="own")]
    constants = {"w": SPARSE, "v": sparse(RNG, 16, 8, 3, 3)}
    model = onnx.load_from_string(network([*nodes, helper.make_node("Add", ["a", "b"], ["y"])], constants, IMAGE))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert [layer.claimed for layer in open_model(model.SerializeToString()).layers] == [True, True]
    for initializer in model.graph.initializer:
        dense = sparse(RNG, 16, 8, 3, 3, density=1)
        initializer.CopyFrom(numpy_helper.from_array(dense, initializer.name))
    assert reasons(model.SerializeToString()) == ["not sparse enough"] * 2


def test_many_outputs_need_no_more_memory_than_there_is() -> None:
    weight = sparse(RNG, 2, 300_000, density=0.01)
    content = network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, {"x": [9, 2]})
    opened = open_model(content, threads=2)
    assert opened.layers[0].claimed
    x = RNG.standard_normal((9, 2)).astype(np.float32)
    assert_close(opened(x=x), x @ weight)


def test_other_ranks_types_and_changing_weights_are_refused() -> None:
    line = network([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": sparse(RNG, 16, 8, 9)}, {"x": ["n", 8, 30]})
    assert reasons(line) == ["not two-dimensional"]
    given = network([conv()], {}, {**IMAGE, "w": list(SPARSE.shape)})
    assert reasons(given) == ["weights are not constant float32"]
    batched = network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse(RNG, 2, 9, 40)}, {"x": [2, 3, 9]})
    assert reasons(batched) == ["weights are not a matrix"]


@pytest.mark.parametrize(
    ("gemm", "reason"),
    [({"transA": 1}, "transposed or scaled input"), ({"alpha": 0.5}, "transposed or scaled input"), ({}, None)],
)
def test_gemm_with_more_than_a_product_is_refused(gemm: Any, reason: str | None) -> None:
    weight = sparse(RNG, 240, 800, density=0.05)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], **gemm)
    shape = [240, "n"] if gemm.get("transA") else ["n", 240]
    assert reasons(network([node], {"w": weight}, {"x": shape})) == [reason]


def executed(content: bytes) -> list[str]:
    """What runs: onnxruntime's operators beside the claimed layers."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    provider.add_to(options, claim="all")
    session = ort.InferenceSession(content, options)
    session.run(None, {"x": np.zeros((1, 8, 10, 10), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]


@pytest.mark.parametrize(
    ("tail", "alone"),
    [
        ([helper.make_node("Relu", ["c"], ["y"])], []),
        ([helper.make_node("Clip", ["c", "low"], ["y"])], []),
        ([helper.make_node("Clip", ["c", "x0"], ["y"])], ["Clip"]),
        ([helper.make_node("Add", ["c", "x"], ["y"])], []),
        ([helper.make_node("Add", ["x", "c"], ["s"]), helper.make_node("Relu", ["s"], ["y"])], []),
        ([helper.make_node("Relu", ["c"], ["s"]), helper.make_node("Add", ["s", "x"], ["y"])], ["Add"]),
        ([helper.make_node("Add", ["c", "c"], ["y"])], ["Add"]),
        ([helper.make_node("Add", ["c", "mean"], ["y"])], ["Add"]),
        ([helper.make_node("Softplus", ["c"], ["y"])], ["Softplus"]),
        ([helper.make_node("Sigmoid", ["c"], ["y"])], []),
        ([helper.make_node("HardSwish", ["c"], ["y"])], []),
        ([helper.make_node("Sigmoid", ["c"], ["g"]), helper.make_node("Mul", ["g", "c"], ["y"])], []),
        ([helper.make_node("HardSigmoid", ["c"], ["g"]), helper.make_node("Mul", ["c", "g"], ["y"])], []),
        ([helper.make_node("Sigmoid", ["c"], ["g"]), helper.make_node("Mul", ["g", "x"], ["y"])], ["Mul"]),
        ([helper.make_node("Relu", ["c"], ["r"]), helper.make_node("HardSwish", ["r"], ["y"])], ["HardSigmoid", "Mul"]),
    ],
)
def test_what_follows_is_joined_where_it_can_be(tail: list[Any], alone: list[str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    constants = {"w": sparse(RNG, 8, 8, 3, 3), "low": np.float32(-0.25)}
    given = [
        helper.make_node("ReduceMin", ["x"], ["x0"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3]),
    ]
    nodes = [conv("c"), *given, *tail]
    content = network(nodes, constants, IMAGE)
    x = RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)
    assert_close(open_model(content)(x=x), open_model(content, with_kernels=False)(x=x))
    others = [name for name in executed(content) if "SparseKernels" not in name]
    assert [name for name in others if not name.startswith("Reduce")] == alone


def test_a_value_that_others_read_too_is_kept() -> None:
    nodes = [conv("c"), helper.make_node("Relu", ["c"], ["a"]), helper.make_node("Sigmoid", ["c"], ["b"])]
    content = network(nodes, {"w": SPARSE}, IMAGE, outputs=("a", "b"))
    returned = network([conv("c"), helper.make_node("Relu", ["c"], ["y"])], {"w": SPARSE}, IMAGE, outputs=("y", "c"))
    x = RNG.standard_normal((1, 8, 10, 10)).astype(np.float32)
    for model in (content, returned):
        ours, dense = open_model(model), open_model(model, with_kernels=False)
        for a, b in zip(ours.session.run(None, {"x": x}), dense.session.run(None, {"x": x}), strict=True):
            assert_close(a, b)


def test_two_layers_that_meet_in_an_addition_take_it_once() -> None:
    nodes = [
        conv("a"),
        conv("b", "v"),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    content = network(nodes, {"w": SPARSE, "v": sparse(RNG, 16, 8, 3, 3)}, IMAGE)
    ours = open_model(content)
    assert [layer.reason for layer in ours.layers] == [None, None]
    x = RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)
    assert_close(ours(x=x), open_model(content, with_kernels=False)(x=x))
