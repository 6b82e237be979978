"""HardSwish, SiLU and their gates against their formulas in double precision; squeeze-and-excitation inside a chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from kernel_files import assert_close, executed, network, open_model, sparse
from numpy.typing import NDArray
from onnx import helper

RNG = np.random.default_rng(9)
Formula = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def activated(names: list[str], instructions: str, **attributes: float) -> Callable[[np.ndarray], np.ndarray]:
    """The kernels' activation alone: behind a convolution that changes nothing."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"])]
    if names[-1] == "Mul":
        nodes += [helper.make_node(names[0], ["c"], ["g"], **attributes), helper.make_node("Mul", ["c", "g"], ["y"])]
    else:
        nodes.append(helper.make_node(names[0], ["c"], ["y"], **attributes))
    content = network(nodes, {"w": np.eye(48, dtype=np.float32).reshape(48, 48, 1, 1)}, {"x": ["n", 48, "h", "w2"]})
    opened = open_model(content, instructions=instructions)
    assert [layer.reason for layer in opened.layers] == [None]
    return lambda x: opened(x=x)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


def hard(x: NDArray[np.float64], alpha: float, beta: float) -> NDArray[np.float64]:
    return np.clip(alpha * x + beta, 0, 1)


@pytest.mark.parametrize("instructions", ["best", "avx2", "generic"])
@pytest.mark.parametrize(
    ("names", "attributes", "formula"),
    [
        (["Sigmoid"], {}, sigmoid),
        (["Sigmoid", "Mul"], {}, lambda x: x * sigmoid(x)),
        (["HardSigmoid"], {"alpha": 0.3, "beta": 0.4}, lambda x: hard(x, 0.3, 0.4)),
        (["HardSigmoid", "Mul"], {}, lambda x: x * hard(x, 0.2, 0.5)),
        (["HardSwish"], {}, lambda x: x * hard(x, 1 / 6, 0.5)),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 9), (16, 16)])
def test_activations_are_their_formulas(
    names: list[str], attributes: dict[str, float], formula: Formula, size: tuple[int, int], instructions: str
) -> None:
    x = np.stack([np.linspace(-low, low, 48 * size[0] * size[1]) for low in (1, 20, 200, 3e38)]).astype(np.float32)
    x = x.reshape(4, 48, *size)
    with np.errstate(over="ignore"):
        expected = formula(x.astype(np.float64))
    found = activated(names, instructions, **attributes)(x)
    # Relative; where a hard gate begins to open, alpha * x + beta is what two larger numbers leave.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 if names[0].startswith("Hard") else 1e-9)


@pytest.mark.parametrize("names", [["Sigmoid"], ["Sigmoid", "Mul"], ["HardSigmoid", "Mul"]])
@pytest.mark.parametrize("instructions", ["best", "avx2", "generic"])
def test_nan_stays_and_infinities_do_as_the_formulas_say(names: list[str], instructions: str) -> None:
    x = np.zeros((1, 48, 3, 1), np.float32)
    x[..., 0, 0], x[..., 1, 0], x[..., 2, 0] = np.nan, np.inf, -np.inf
    # A weight that is zero takes no part: the diagonal is all that is computed.
    gates = [np.nan, 1.0, 0.0]
    with np.errstate(invalid="ignore"):
        expected = [gate * value for gate, value in zip(gates, x[0, 0, :, 0], strict=True)] if len(names) > 1 else gates
    found = activated(names, instructions)(x)[0, 5, :, 0]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def excited(size: int, *, axes_as_input: bool, kernel: int = 3, stride: int = 1) -> bytes:
    """As in MobileNetV3: expand, depthwise, squeeze and excite, project, and the input added where it can be."""
    constants = {
        "first": sparse(RNG, 16, 8, 1, 1),
        "expand": sparse(RNG, 72, 16, 1, 1),
        "depthwise": sparse(RNG, 72, 1, kernel, kernel, density=1),
        "squeeze": sparse(RNG, 24, 72, 1, 1),
        "excite": sparse(RNG, 72, 24, 1, 1),
        "project": sparse(RNG, 16, 72, 1, 1),
        "axes": np.array([-1, 2]),
    }

    def conv(x: str, y: str, weight: str, **attributes: object) -> onnx.NodeProto:
        pad = constants[weight].shape[2] // 2
        return helper.make_node("Conv", [x, weight], [y], pads=[pad] * 4, **attributes)

    mean = helper.make_node("ReduceMean", ["d", "axes"], ["m"], keepdims=1)
    nodes = [
        conv("x", "a", "first"),
        conv("a", "b", "expand"),
        helper.make_node("HardSwish", ["b"], ["c"]),
        conv("c", "p", "depthwise", group=72, strides=[stride] * 2),
        helper.make_node("Sigmoid", ["p"], ["q"]),
        helper.make_node("Mul", ["p", "q"], ["d"]),
        mean if axes_as_input else helper.make_node("GlobalAveragePool", ["d"], ["m"]),
        conv("m", "s", "squeeze"),
        helper.make_node("Relu", ["s"], ["t"]),
        conv("t", "e", "excite"),
        helper.make_node("HardSigmoid", ["e"], ["f"]),
        helper.make_node("Mul", *([["f", "d"]] if axes_as_input else [["d", "f"]]), ["g"]),
        conv("g", "h", "project"),
        *([helper.make_node("Add", ["h", "a"], ["i"])] if stride == 1 else []),
        conv("i" if stride == 1 else "h", "y", "expand"),
    ]
    return network(nodes, constants, {"x": ["n", 8, size, size]}, opset=18)


@pytest.mark.parametrize("size", [3, 7, 14, 28, 56])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (7, 1), (5, 2)])
@pytest.mark.parametrize("axes_as_input", [False, True])
def test_squeeze_and_excitation_is_inside(
    size: int, kernel: int, stride: int, axes_as_input: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = excited(size, axes_as_input=axes_as_input, kernel=kernel, stride=stride)
    assert executed(content, np.zeros((1, 8, size, size), np.float32)) == ["ours"]
    ours, dense = open_model(content), open_model(content, with_kernels=False)
    for batch in (1, 3):
        x = RNG.standard_normal((batch, 8, size, size)).astype(np.float32)
        assert_close(ours(x=x), dense(x=x))


def test_a_product_of_equal_images_is_not_ours() -> None:
    """The factor's size is that of the image, or not known for certain."""
    constants = {"w": sparse(RNG, 16, 8, 3, 3), "v": sparse(RNG, 16, 16, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["x", "w"], ["b"], pads=[1] * 4),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "v"], ["y"], pads=[1] * 4),
    ]
    content = network(nodes, constants, {"x": ["n", 8, "h", "w2"]})
    ours, dense = open_model(content), open_model(content, with_kernels=False)
    for size in ((1, 1), (6, 5)):
        x = RNG.standard_normal((2, 8, *size)).astype(np.float32)
        assert_close(ours(x=x), dense(x=x))


@pytest.mark.parametrize("size", [224, 333])
def test_the_mean_of_many_equal_pixels_is_one_of_them(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Onnxruntime's float32 sums are off by 5e-4 here."""
    monkeypatch.chdir(tmp_path)
    one = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    mean = helper.make_node("GlobalAveragePool", ["a"], ["m"])
    nodes = [helper.make_node("Conv", ["x", "one"], ["a"]), mean, helper.make_node("Conv", ["m", "one"], ["y"])]
    content = network(nodes, {"one": one}, {"x": ["n", 8, size, size]})
    x = np.full((1, 8, size, size), 0.1, np.float32)
    assert executed(content, x) == ["ours"]
    (y,) = open_model(content).session.run(None, {"x": x})
    np.testing.assert_allclose(y, np.full((1, 8, 1, 1), 0.1), rtol=1e-6)
