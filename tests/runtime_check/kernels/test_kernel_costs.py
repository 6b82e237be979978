"""Which layers pay: by sparsity, by size, and by what stands beside them."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_files import assert_close, network, open_model, sparse
from onnx import helper

RNG = np.random.default_rng(8)
COPYING = "copying its tensors takes longer than its zeros save"


def claimed(
    c: int, k: int, kernel: int, density: float, *, size: int = 14, depthwise: bool = False, **settings: str
) -> bool:
    """Whether a convolution is claimed; with `depthwise`, between two depthwise ones."""
    constants = {"w": sparse(RNG, k, c, kernel, kernel, density=density)}
    nodes = [helper.make_node("Conv", ["x" if not depthwise else "a", "w"], ["c"], pads=[kernel // 2] * 4)]
    if depthwise:
        constants |= {"before": sparse(RNG, c, 1, 3, 3, density=1), "after": sparse(RNG, k, 1, 3, 3, density=1)}
        nodes.insert(0, helper.make_node("Conv", ["x", "before"], ["p"], group=c, pads=[1] * 4))
        nodes.insert(1, helper.make_node("Clip", ["p", "zero", "six"], ["a"]))
        nodes += [helper.make_node("Conv", ["c", "after"], ["d"], group=k, pads=[1] * 4)]
        constants |= {"zero": np.float32(0), "six": np.float32(6)}
    nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["y"]))
    opened = open_model(network(nodes, constants, {"x": ["n", c, size, size]}), claim="sparse", **settings)
    (layer,) = [layer for layer in opened.layers if layer.weights == c * k * kernel**2]
    return layer.claimed


@pytest.mark.parametrize("kernel", [1, 3])
def test_from_some_sparsity_on_a_layer_is_claimed(kernel: int) -> None:
    found = [claimed(64, 64, kernel, density) for density in (1, 0.7, 0.55, 0.4, 0.2, 0.1, 0.02)]
    assert found == sorted(found)
    assert found[:3] == [False] * 3
    assert found[-3:] == [True] * 3


def test_beside_depthwise_layers_it_takes_more_zeros() -> None:
    assert claimed(64, 128, 1, 0.4)
    assert not claimed(64, 128, 1, 0.4, depthwise=True)
    assert claimed(64, 128, 1, 0.1, depthwise=True)


def test_small_layers_between_those_of_onnxruntime_take_more_zeros() -> None:
    """As in SqueezeNet's fire modules, where every branch ends in a Concat."""

    def between(density: float, *, size: int = 15, alone: bool = False) -> bool:
        nodes = [
            helper.make_node("LeakyRelu", ["x"], ["a"]),
            helper.make_node("Conv", ["a", "w"], ["b"], pads=[1] * 4),
            helper.make_node("LeakyRelu", ["b"], ["y"]),
        ]
        if alone:
            nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)]
        constants = {"w": sparse(RNG, 64, 16, 3, 3, density=density)}
        opened = open_model(network(nodes, constants, {"x": ["n", 16, size, size]}), claim="sparse")
        return opened.layers[0].claimed

    assert between(0.35, alone=True)
    assert not between(0.35)
    assert between(0.05)
    assert between(0.35, size=60)


def test_huge_tensors_that_would_be_laid_out_anew_stay() -> None:
    assert not claimed(16, 96, 1, 0.1, size=112, depthwise=True)
    assert claimed(16, 96, 1, 0.1, size=28, depthwise=True)


@pytest.mark.parametrize(("density", "kernel", "expected"), [(0.1, 3, True), (1, 3, False), (0.1, 7, False)])
def test_a_dense_first_layer_goes_with_the_sparse_layer_behind_it(density: float, kernel: int, expected: bool) -> None:
    """As in VGG-16 for CIFAR; of 7x7, onnxruntime's are so quick that the saved copies do not make up for it."""
    constants = {
        "first": sparse(RNG, 64, 3, kernel, kernel, density=1),
        "w": sparse(RNG, 64, 64, 3, 3, density=density),
    }
    nodes = [helper.make_node("Conv", ["x", "first"], ["a"], pads=[kernel // 2] * 4)]
    nodes += [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Conv", ["b", "w"], ["y"], pads=[1] * 4)]
    opened = open_model(network(nodes, constants, {"x": ["n", 3, 32, 32]}), claim="sparse")
    assert [layer.claimed for layer in opened.layers] == [expected, density < 1]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "pad"), [(4, 4, 9, 8), (3, 4, 10, 12), (3, 64, 3, 1)])
def test_dense_layers_of_few_inputs_stay_where_nothing_sparse_follows(
    inputs: int, outputs: int, kernel: int, pad: int
) -> None:
    assert reason_of_conv(inputs, outputs, (kernel, kernel), [64, 64], 1, pad=pad)


@pytest.mark.parametrize(("density", "expected"), [(0.1, [True] * 4), (1, [False] * 4)])
def test_the_first_block_of_a_mobile_network_is_one_stretch(density: float, expected: list[bool]) -> None:
    """A dense layer, a depthwise one and a thin one, which are too small alone, before an expansion."""
    shapes = {"a": (32, 3, 3), "b": (32, 1, 3), "c": (16, 32, 1), "d": (96, 16, 1)}
    constants = {
        name: sparse(RNG, k, c, size, size, density=1 if name in "ab" else density)
        for name, (k, c, size) in shapes.items()
    }
    constants |= {"zero": np.float32(0), "six": np.float32(6), "after": sparse(RNG, 24, 96, 1, 1, density=density)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a1"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Clip", ["a1", "zero", "six"], ["a2"]),
        helper.make_node("Conv", ["a2", "b"], ["b1"], pads=[1] * 4, group=32),
        helper.make_node("Clip", ["b1", "zero", "six"], ["b2"]),
        helper.make_node("Conv", ["b2", "c"], ["c1"]),
        helper.make_node("Conv", ["c1", "d"], ["d1"]),
        helper.make_node("Clip", ["d1", "zero", "six"], ["d2"]),
        helper.make_node("Conv", ["d2", "after"], ["y"]),
    ]
    opened = open_model(network(nodes, constants, {"x": ["n", 3, 224, 224]}), claim="sparse")
    assert [layer.claimed for layer in opened.layers][:4] == expected
    if density < 1:
        x = RNG.standard_normal((1, 3, 224, 224)).astype(np.float32)
        stock = open_model(network(nodes, constants, {"x": ["n", 3, 224, 224]}), with_kernels=False)
        assert_close(opened(x=x), stock(x=x))


def test_without_vector_instructions_it_takes_more_zeros() -> None:
    assert claimed(64, 64, 3, 0.3)
    assert not claimed(64, 64, 3, 0.3, instructions="generic")
    assert claimed(64, 64, 3, 0.1, instructions="generic")


def reason(nodes: list, constants: dict[str, np.ndarray], shape: list) -> str | None:
    """Why the last layer with weights is not claimed; None where it is."""
    return open_model(network(nodes, constants, {"x": shape}), claim="sparse").layers[-1].reason


def reason_of_conv(
    c: int, k: int, kernel: tuple[int, int], size: list, density: float, *, pad: int | None = None, **attributes: int
) -> str | None:
    stride, dilation = attributes.get("stride", 1), attributes.get("dilation", 1)
    pads = [(length - 1) * dilation // 2 if pad is None else pad for length in kernel] * 2
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, strides=[stride] * 2, dilations=[dilation] * 2)
    return reason([node], {"w": sparse(RNG, k, c, *kernel, density=density)}, ["n", c, *size])


def reason_of_linear(rows: list, inputs: int, outputs: int, density: float) -> str | None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return reason([node], {"w": sparse(RNG, inputs, outputs, density=density)}, [*rows, inputs])


@pytest.mark.parametrize(("rows", "dense", "paying"), [([1], 0.2, 0.05), (["n"], 0.2, 0.05), ([4], 0.3, 0.1)])
def test_linear_layers_with_few_rows_take_more_zeros(rows: list, dense: float, paying: float) -> None:
    """Rows that are not known may be one."""
    assert reason_of_linear(rows, 512, 512, dense) == "not sparse enough for so few rows"
    assert reason_of_linear(rows, 512, 512, 1) == "not sparse enough"
    assert reason_of_linear(rows, 512, 512, paying) is None
    assert reason_of_linear([64], 512, 512, dense) is None
    assert reason_of_linear(["n", 64], 512, 512, dense) is None


def test_narrow_linear_layers_cost_more_to_read_and_write() -> None:
    assert reason_of_linear([1024], 64, 64, 0.2) == "not sparse enough"
    assert reason_of_linear([1024], 256, 256, 0.2) is None


@pytest.mark.parametrize("size", [[17, 17], [33, 33], ["h", "w"]])
def test_wide_dilation_is_refused_by_what_the_copy_would_be(size: list) -> None:
    assert "dilation" in (reason_of_conv(256, 256, (3, 3), size, 0.1, dilation=36) or "")
    assert reason_of_conv(256, 256, (3, 3), size, 0.1, dilation=2) is None


def test_windows_mostly_in_the_padding_are_no_work_for_onnxruntime() -> None:
    assert reason_of_conv(64, 64, (3, 3), [1, 400], 0.3) == "not sparse enough"
    assert reason_of_conv(64, 64, (3, 3), [400, 1], 0.1) is not None
    assert reason_of_conv(64, 64, (3, 3), [20, 20], 0.3) is None


def test_windows_side_by_side_have_to_pay_for_the_copy() -> None:
    assert reason_of_conv(64, 16, (8, 8), [56, 56], 0.2, stride=8, pad=0) == COPYING
    assert reason_of_conv(64, 256, (4, 4), [56, 56], 0.2, stride=4, pad=0) is None


@pytest.mark.parametrize(("kernel", "dilation", "pays"), [(3, 1, True), (5, 1, True), (13, 1, False), (3, 12, False)])
def test_depthwise_layers_join_where_their_windows_are_small(kernel: int, dilation: int, pays: bool) -> None:
    pads = [(kernel - 1) * dilation // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "d"], ["b"], group=64, pads=pads, dilations=[dilation] * 2),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    constants = {"w": sparse(RNG, 64, 64, 1, 1), "d": sparse(RNG, 64, 1, kernel, kernel, density=1)}
    opened = open_model(network(nodes, constants, {"x": ["n", 64, 33, 33]}), claim="sparse")
    (layer,) = [layer for layer in opened.layers if layer.weights != 64 * 64]
    assert layer.reason == (None if pays else "its window reaches too far to pay")


def test_windows_as_usual_are_claimed_by_their_zeros_unless_copies_are_out_of_proportion() -> None:
    assert reason_of_conv(64, 64, (3, 3), [8, 8], 0.3) is None
    assert reason_of_conv(64, 64, (3, 3), [8, 8], 0.6) == "not sparse enough"
    assert reason_of_conv(12, 20, (3, 3), [8, 8], 0.3) == COPYING
    assert reason_of_conv(512, 32, (7, 1), [7, 7], 0.05) == COPYING
    assert reason_of_conv(8, 1024, (3, 1), [7, 100], 0.05) == COPYING


def test_vectors_that_stay_empty_count() -> None:
    """Eight groups of rows: 16 are filled whole, of 24 for 17 rows a third is empty."""
    assert reason_of_conv(192, 192, (3, 3), [16, 17], 0.42) is None
    assert reason_of_conv(192, 192, (3, 3), [17, 17], 0.42) == "not sparse enough"
    assert reason_of_conv(192, 192, (3, 3), [17, 17], 0.3) is None


def test_layers_of_few_inputs_or_outputs_among_others_take_more_zeros() -> None:
    assert reason_of_conv(16, 64, (1, 1), [56, 56], 0.4) == "not sparse enough"
    assert reason_of_conv(128, 16, (1, 1), [56, 56], 0.4) == "not sparse enough"
    assert reason_of_conv(128, 128, (1, 1), [56, 56], 0.4) is None


def test_tiny_images_are_what_onnxruntime_reads_of_them() -> None:
    """A 3x3 window on one pixel is a 1x1 layer to onnxruntime, and on 2x2 pixels less than half of its nine taps."""
    found = {size: [claimed(256, 256, 3, density, size=size) for density in (0.4, 0.25, 0.1)] for size in (1, 2, 4, 14)}
    assert found == {1: [False] * 3, 2: [False, False, True], 4: [False, True, True], 14: [True] * 3}
    large = [claimed(512, 512, 3, density, size=2) for density in (0.4, 0.2)]  # comes from memory
    assert large == [True, True]


def test_chains_on_one_pixel_are_claimed_only_in_a_squeeze_and_excitation() -> None:
    constants = {f"w{i}": sparse(RNG, 256, 256, 1, 1, density=0.3) for i in range(4)}
    nodes = [helper.make_node("Conv", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(4)]
    content = network(nodes, constants, {"v0": ["n", 256, 1, 1]}, outputs=("v4",))
    assert not any(layer.claimed for layer in open_model(content, claim="sparse").layers)
