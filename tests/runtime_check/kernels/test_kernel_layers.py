"""Randomly drawn layers against onnxruntime's own dense kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_files import assert_close, network, open_model, sparse
from onnx import helper

DENSITIES = (0.0, 0.02, 0.1, 0.2, 0.5, 1.0)


def draw(seed: int) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    """A file of one layer with everything that can be joined to it, and inputs of two shapes."""
    rng = np.random.default_rng(seed)
    return draw_linear(rng) if seed % 4 == 0 else draw_conv(rng)


def draw_conv(rng: np.random.Generator) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    usual = rng.random() < 0.6
    c, k = (int(n) for n in rng.integers(1, 70, 2))
    kernel = [int(rng.choice([1, 3, 5, 7]))] * 2 if usual else rng.integers(1, 6, 2).tolist()
    strides = [int(rng.choice([1, 1, 2]))] * 2 if usual else rng.integers(1, 4, 2).tolist()
    dilations = [1, 1] if usual else rng.integers(1, 4, 2).tolist()
    pads = [kernel[0] // 2] * 4 if usual else rng.integers(0, 4, 4).tolist()
    weight = sparse(rng, k, c, *kernel, density=float(rng.choice(DENSITIES)))
    constants = {"w": weight}
    bias = rng.random() < 0.7
    if bias:
        constants["b"] = rng.standard_normal(k).astype(np.float32)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "pads": pads}
    nodes = [helper.make_node("Conv", ["x", "w"] + ["b"] * bias, ["c"], **attributes)]
    least = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    shapes = [
        [int(rng.integers(1, 5)), c, *(int(rng.integers(n, n + 30)) for n in least)],
        [1, c, *(int(n + rng.integers(0, 3)) for n in least)],
    ]
    residual = rng.random() < 0.5
    sizes = ["n", k, "h2", "w2"]
    nodes += tail(rng, "c", "r" if residual else None, constants)
    inputs: dict[str, list[Any]] = {"x": ["n", c, "h", "w"]}
    if residual:
        # Two free shapes are equal for certain only where a file says so: the batch is free here, the image fixed.
        shapes = [shapes[0], [3, *shapes[0][1:]]]
        padded = [shapes[0][2] + pads[0] + pads[2], shapes[0][3] + pads[1] + pads[3]]
        out = [(size - low) // step + 1 for size, low, step in zip(padded, least, strides, strict=True)]
        sizes = ["n", k, *out]
        inputs = {"x": ["n", *shapes[0][1:]], "r": sizes}
    feeds = []
    for shape in shapes:
        feed = {"x": rng.standard_normal(shape).astype(np.float32)}
        if residual:
            feed["r"] = rng.standard_normal([shape[0], *sizes[1:]]).astype(np.float32)
        feeds.append(feed)
    return network(nodes, constants, inputs), feeds


def draw_linear(rng: np.random.Generator) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    c, k = (int(n) for n in rng.integers(1, 200, 2))
    flipped = int(rng.integers(2))
    constants = {"w": sparse(rng, *((k, c) if flipped else (c, k)), density=float(rng.choice(DENSITIES)))}
    deep = not flipped and rng.random() < 0.5
    if deep:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["c"])]
    else:
        constants["b"] = rng.standard_normal([[k], [1, k], [1]][int(rng.integers(3))]).astype(np.float32)
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["c"], transB=flipped)]
    residual = rng.random() < 0.3
    nodes += tail(rng, "c", "r" if residual else None, constants)
    lead: list[Any] = ["n", 3] if deep else ["n"]
    inputs: dict[str, list[Any]] = {"x": [*lead, c]} | ({"r": [*lead, k]} if residual else {})
    feeds = []
    for rows in (1, int(rng.integers(2, 60))):
        sizes = [rows, 3] if deep else [rows]
        feed = {"x": rng.standard_normal([*sizes, c]).astype(np.float32)}
        if residual:
            feed["r"] = rng.standard_normal([*sizes, k]).astype(np.float32)
        feeds.append(feed)
    return network(nodes, constants, inputs), feeds


def tail(rng: np.random.Generator, value: str, residual: str | None, constants: dict[str, np.ndarray]) -> list[Any]:
    """Up to an addition and bounds behind `value`; the last node gives y."""
    nodes = []
    if residual:
        pair = [value, residual] if rng.random() < 0.5 else [residual, value]
        nodes.append(helper.make_node("Add", pair, ["sum"]))
        value = "sum"
    bounds = rng.choice(["none", "relu", "clip"])
    if bounds == "relu":
        nodes.append(helper.make_node("Relu", [value], ["y"]))
    elif bounds == "clip":
        constants |= {"low": np.float32(-0.5), "high": np.float32(1.5)}
        nodes.append(
            helper.make_node("Clip", [value, *(["low", "high"] if rng.random() < 0.7 else ["", "high"])], ["y"])
        )
    elif rng.random() < 0.5:
        nodes.append(helper.make_node("Identity", [value], ["y"]))
    else:
        times = rng.random() < 0.5
        gate = str(rng.choice(["Sigmoid", "HardSigmoid"]))
        nodes.append(helper.make_node(gate, [value], ["g" if times else "y"]))
        if times:
            nodes.append(helper.make_node("Mul", [value, "g"] if rng.random() < 0.5 else ["g", value], ["y"]))
    return nodes


def compare(seed: int, **settings: str) -> None:
    content, feeds = draw(seed)
    dense, ours = open_model(content, with_kernels=False), open_model(content, **settings)
    assert [layer.reason for layer in ours.layers] == [None]
    for feed in feeds:
        assert_close(ours(**feed), dense(**feed))


@pytest.mark.parametrize("instructions", ["best", "generic"])
def test_random_layers_are_those_of_onnxruntime(instructions: str) -> None:
    for seed in range(80):
        compare(seed, instructions=instructions)


@pytest.mark.slow
def test_many_random_layers() -> None:
    for seed in range(1000, 3000):
        compare(seed)


@pytest.mark.parametrize("size", [7, 14, 16, 28, 32, 56])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1)])
def test_the_layers_that_networks_have(size: int, kernel: int, stride: int) -> None:
    rng = np.random.default_rng(size)
    weight = sparse(rng, 96, 64, kernel, kernel)
    node = helper.make_node("Conv", ["x", "w"], ["c"], strides=[stride] * 2, pads=[kernel // 2] * 4)
    nodes = [node, helper.make_node("Relu", ["c"], ["y"])]
    content = network(nodes, {"w": weight}, {"x": ["n", 64, size, size]})
    dense, ours = open_model(content, with_kernels=False), open_model(content)
    for batch in (1, 3):
        x = rng.standard_normal((batch, 64, size, size)).astype(np.float32)
        assert_close(ours(x=x), dense(x=x))
