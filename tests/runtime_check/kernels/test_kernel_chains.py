"""Layers that follow each other run as one node, with what lies between them, and never around something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from kernel_files import assert_close, executed, network, open_model, sparse
from onnx import helper

RNG = np.random.default_rng(3)


def conv(x: str, y: str, weight: str, kernel: int = 1, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, weight], [y], pads=[kernel // 2] * 4, **attributes)


def check(content: bytes, shape: tuple[int, ...]) -> None:
    ours, dense = open_model(content), open_model(content, with_kernels=False)
    for batch in (shape[0], 3):
        x = RNG.standard_normal((batch, *shape[1:])).astype(np.float32)
        for a, b in zip(ours.session.run(None, {"x": x}), dense.session.run(None, {"x": x}), strict=True):
            assert_close(a, b)


def inverted_residual(size: int, kernel: int, stride: int) -> bytes:
    """As in MobileNetV2: expand, depthwise, project, and the input added where it can be."""
    weights = {"first": sparse(RNG, 16, 8, 1, 1), "expand": sparse(RNG, 48, 16, 1, 1)}
    weights |= {"depthwise": sparse(RNG, 48, 1, kernel, kernel, density=1), "project": sparse(RNG, 16, 48, 1, 1)}
    nodes = [
        conv("x", "a", "first"),
        conv("a", "b", "expand"),
        helper.make_node("Clip", ["b", "zero", "six"], ["c"]),
        conv("c", "d", "depthwise", kernel, group=48, strides=[stride] * 2),
        helper.make_node("Clip", ["d", "zero", "six"], ["e"]),
        conv("e", "f", "project"),
        *([helper.make_node("Add", ["f", "a"], ["g"])] if stride == 1 else []),
        helper.make_node("Conv", ["g" if stride == 1 else "f", "first2"], ["y"]),
    ]
    constants = {**weights, "zero": np.float32(0), "six": np.float32(6), "first2": sparse(RNG, 24, 16, 1, 1)}
    return network(nodes, constants, {"x": ["n", 8, size, size]})


@pytest.mark.parametrize("size", [4, 7, 14, 15, 28, 56])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_an_inverted_residual_is_one_node(size: int, kernel: int, stride: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = inverted_residual(size, kernel, stride)
    assert executed(content, np.zeros((1, 8, size, size), np.float32)) == ["ours"]
    check(content, (1, 8, size, size))


@pytest.mark.parametrize("size", [7, 14, 28, 56])
def test_a_bottleneck_with_a_strided_shortcut_is_one_node(size: int, tmp_path, monkeypatch) -> None:
    """As in ResNet-50: the shortcut's output is what is added, and the sum is read by two layers."""
    monkeypatch.chdir(tmp_path)
    weights = {
        "w0": (16, 8, 3),
        "w1": (8, 16, 1),
        "w2": (8, 8, 3),
        "w3": (32, 8, 1),
        "ws": (32, 16, 1),
        "w4": (8, 32, 1),
    }
    constants = {name: sparse(RNG, k, c, kernel, kernel, density=0.3) for name, (k, c, kernel) in weights.items()}
    nodes = [
        conv("x", "t", "w0", 3),
        conv("t", "a", "w1"),
        conv("a", "b", "w2", 3, strides=[2, 2]),
        conv("b", "c", "w3"),
        conv("t", "s", "ws", strides=[2, 2]),
        helper.make_node("Add", ["c", "s"], ["u"]),
        helper.make_node("Relu", ["u"], ["v"]),
        conv("v", "d", "w4"),
        helper.make_node("Conv", ["d", "w3"], ["e"]),
        helper.make_node("Add", ["e", "v"], ["y"]),
    ]
    content = network(nodes, constants, {"x": ["n", 8, size, size]})
    assert executed(content, np.zeros((1, 8, size, size), np.float32)) == ["ours"]
    check(content, (1, 8, size, size))


@pytest.mark.parametrize("size", [32, 9, 5])
def test_pooling_between_layers_is_inside(size: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "v": sparse(RNG, 16, 16, 3, 3)}
    pool = helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2])
    content = network([conv("x", "a", "w", 3), pool, conv("b", "y", "v", 3)], constants, {"x": ["n", 8, size, size]})
    assert executed(content, np.zeros((1, 8, size, size), np.float32)) == ["ours"]
    check(content, (1, 8, size, size))


@pytest.mark.parametrize("size", [(2, 2), (2, 8), (8, 2), (24, 2), (2, 40), (40, 40)])
def test_pooling_windows_larger_than_the_image_overhang_it(size: tuple[int, int]) -> None:
    """As onnxruntime has it, which divides towards zero: one window, of what there is."""
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "v": sparse(RNG, 16, 16, 1, 1)}
    pool = helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2])
    nodes = [conv("x", "a", "w", 3), pool, conv("b", "y", "v")]
    check(network(nodes, constants, {"x": ["n", 8, "h", "w"]}), (1, 8, *size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 12, 18, 25])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_layers_on_images_that_do_not_fill_lanes(size: int, kernel: int, stride: int) -> None:
    """Eight channels at once, and other counts than multiples of eight."""
    constants = {"w": sparse(RNG, 21, 8, 1, 1), "d": sparse(RNG, 21, 1, kernel, kernel, density=1)}
    constants |= {"v": sparse(RNG, 16, 21, 1, 1)}
    nodes = [
        conv("x", "a", "w"),
        conv("a", "b", "d", kernel, group=21, strides=[stride] * 2),
        helper.make_node("HardSigmoid", ["b"], ["s"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["b", "s"], ["c"]),
        conv("c", "y", "v"),
    ]
    check(network(nodes, constants, {"x": ["n", 8, size, size]}), (1, 8, size, size))


def test_depthwise_layers_beside_others_stay() -> None:
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "d": sparse(RNG, 16, 1, 3, 3, density=1)}
    nodes = [conv("x", "a", "w", 3), conv("a", "y", "d", 3, group=16)]
    opened = open_model(network(nodes, constants, {"x": ["n", 8, 9, 9]}))
    assert {layer.name: layer.reason for layer in opened.layers} == {"a": None, "y": "not between sparse layers"}


def test_what_lies_between_and_is_not_ours_divides_the_chain(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    constants = {"w": sparse(RNG, 8, 8, 3, 3), "v": sparse(RNG, 8, 8, 3, 3)}
    nodes = [
        conv("x", "a", "w", 3),
        helper.make_node("Erf", ["a"], ["b"]),
        conv("b", "c", "v", 3),
        conv("a", "d", "v", 3),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    content = network(nodes, constants, {"x": ["n", 8, 9, 9]})
    names = executed(content, np.zeros((1, 8, 9, 9), np.float32))
    assert names.count("ours") == 2
    assert names.index("ours") < names.index("Erf") < len(names) - 1
    check(content, (1, 8, 9, 9))


def test_a_branch_that_reads_from_outside_divides_the_chain_too() -> None:
    """The first layer's output is read only inside a branch, whose result the second layer reads."""
    inner = [helper.make_node("Erf", ["a"], ["r"])], [helper.make_node("Neg", ["a"], ["r"])]
    result = [helper.make_tensor_value_info("r", 1, None)]
    then, other = (helper.make_graph(nodes, name, [], result) for nodes, name in zip(inner, "te", strict=True))
    nodes = [
        conv("x", "a", "w", 3),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["b"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["b", "v"], ["y"]),
    ]
    constants = {"w": sparse(RNG, 8, 8, 3, 3), "v": sparse(RNG, 24, 8, 1, 1), "zero": np.float32(0)}
    content = network(nodes, constants, {"x": ["n", 8, 9, 9]})
    check(content, (1, 8, 9, 9))


def test_values_inside_a_chain_that_the_graph_returns_are_whole() -> None:
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "v": sparse(RNG, 16, 16, 3, 3)}
    nodes = [
        conv("x", "a", "w", 3),
        conv("a", "b", "v", 3),
        helper.make_node("Add", ["b", "a"], ["c"]),
        conv("c", "y", "v", 3),
    ]
    check(network(nodes, constants, {"x": ["n", 8, 14, 14]}, outputs=("y", "a", "c")), (1, 8, 14, 14))
