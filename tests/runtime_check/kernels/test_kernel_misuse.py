"""Inputs and files that are wrong give an error of onnxruntime's kind; odd values have a stated meaning."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from kernel_files import assert_close, network, open_model, sparse
from onnx import helper

from runtime_check.kernels import provider

RNG = np.random.default_rng(11)
WEIGHT = sparse(RNG, 16, 8, 3, 3)


def one_conv(shape: list[Any], weight: np.ndarray = WEIGHT, **attributes: Any) -> bytes:
    return network([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"w": weight}, {"x": shape})


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 7, 9, 9), "wrong number of channels"),
        ((1, 8, 2, 9), "smaller than the kernel"),
        ((1, 8, 9, 0), "smaller than the kernel"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...], text: str) -> None:
    ours = open_model(one_conv(["n", "c", "h", "w"]))
    assert ours.layers[0].claimed
    with pytest.raises(Exception, match=text):
        ours(x=np.zeros(shape, np.float32))
    assert ours(x=np.zeros((1, 8, 9, 9), np.float32)).shape == (1, 16, 7, 7)  # and it goes on


@pytest.mark.skipif(sys.platform != "linux", reason="reads the most memory a process had from /proc")
def test_paddings_of_thousands_around_one_pixel_take_no_gigabytes(tmp_path: Path) -> None:
    """Windows of 200x200, whose copy tap by tap would be 2 GB for each channel."""
    constants = {"w": np.eye(4, dtype=np.float32)[:, :, None, None], "d": np.ones((4, 1, 200, 200), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "d"], ["b"], group=4, pads=[100, 4000, 100, 4000]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    path = tmp_path / "model.onnx"
    path.write_bytes(network(nodes, constants, {"x": ["n", 4, 1, 1]}))
    code = """
import sys
import numpy as np
from kernel_files import open_model
from runtime_check import kernels
assert kernels.status().available
with open(sys.argv[1], "rb") as file:
    opened = open_model(file.read())
assert [layer.claimed for layer in opened.layers] == [True] * 3
y = opened(x=np.ones((1, 4, 1, 1), np.float32))
assert y.shape == (1, 4, 2, 7802) and y.min() == 0 and y.max() == 1
with open("/proc/self/status") as file:  # getrusage counts what the process had that started this one
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, path], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 700_000  # kilobytes


def test_an_empty_batch_has_an_empty_result() -> None:
    assert open_model(one_conv(["n", 8, 9, 9]))(x=np.zeros((0, 8, 9, 9), np.float32)).shape == (0, 16, 7, 7)
    linear = network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse(RNG, 9, 40)}, {"x": ["n", 3, 9]})
    assert open_model(linear)(x=np.zeros((0, 3, 9), np.float32)).shape == (0, 3, 40)


@pytest.mark.parametrize("empty", ["a", "b", "both"])
def test_an_empty_batch_leaves_layers_side_by_side_alone(empty: str) -> None:
    """Layers that have nothing in common are one node, and each has a batch of its own."""
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["ya"], pads=[1] * 4),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "v"], ["yb"]),
    ]
    constants = {"w": WEIGHT, "v": sparse(RNG, 16, 16, 1, 1)}
    content = network(nodes, constants, {"a": ["n", 8, 9, 9], "b": ["m", 8, 9, 9]}, ("ya", "yb"))
    ours, dense = (open_model(content, with_kernels=flag).session for flag in (True, False))
    shapes = {name: (0 if empty in (name, "both") else 2, 8, 9, 9) for name in ("a", "b")}
    feed = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for _ in range(2):
        for actual, expected in zip(ours.run(None, feed), dense.run(None, feed), strict=True):
            assert_close(actual, expected)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [1 << 40, 1]},
        {"dilations": [1, 1 << 40]},
        {"pads": [1 << 40, 0, 0, 0]},
        {"pads": [0, 0, -1, 0]},
        {"auto_pad": "VALID", "pads": [1, 1, 1, 1]},
        {"strides": [0, 1]},
        {"strides": [-1, 1]},
    ],
)
def test_attributes_out_of_range_are_never_claimed(attributes: Any) -> None:
    content = one_conv(["n", 8, 9, 9], **attributes)
    try:
        ours = open_model(content)
    except Exception:
        return  # onnxruntime itself refuses the file
    assert not any(layer.claimed for layer in ours.layers)


@pytest.mark.parametrize(
    "attributes",
    [{"strides": [1]}, {"pads": [1, 1]}, {"kernel_shape": [5, 5]}, {"dilations": [1, 1, 1]}, {"kernel_shape": [3]}],
)
def test_malformed_attributes_are_errors_or_not_claimed(attributes: Any) -> None:
    content = one_conv(["n", 8, 9, 9], **attributes)
    try:
        ours = open_model(content)
    except Exception:
        return
    assert not any(layer.claimed for layer in ours.layers)


@pytest.mark.parametrize("kind", ["NONSENSE", "same_upper", "SAME_UPPER" * 9])
def test_an_unknown_padding_is_refused_as_without_kernels(kind: str) -> None:
    content = one_conv(["n", 8, 9, 9], auto_pad=kind)
    for with_kernels in (False, True):
        with pytest.raises(Exception, match=r"auto_pad|AutoPadType|padding"):
            open_model(content, with_kernels=with_kernels)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"claim": "al"}, "claim: 'al' is not one of sparse, all"),
        ({"claim": "sparse, all"}, "claim: 'sparse, all' is not one of sparse, all"),
        ({"instructions": "avx"}, "instructions: 'avx' is not one of best, avx2, generic"),
        ({"report": "-1"}, "report: not a number"),
        ({"report": "9" * 20}, "report: not a number"),
    ],
)
def test_options_are_checked(setting: dict[str, str], message: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    provider.add_to(options, **setting)
    with pytest.raises(Exception, match=message):
        ort.InferenceSession(one_conv(["n", 8, 9, 9]), options, enable_fallback=0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [16000] * 4, "dilations": [16000] * 2},
        {"pads": [30000] * 4, "strides": [30000] * 2},
        {"pads": [3000] * 4, "dilations": [3000] * 2},
        {"pads": [0] * 4, "dilations": [5] * 2},
    ],
)
def test_what_could_not_run_is_not_claimed(attributes: Any) -> None:
    """Even where everything that can be run is to be claimed."""
    try:
        ours = open_model(one_conv([1, 8, 8, 8], **attributes))
    except Exception:
        return  # onnxruntime itself refuses the file
    assert ours.layers[0].reason in ("padding or dilation too large", "image smaller than the kernel")
    assert open_model(one_conv([1, 8, 8, 8], pads=[30] * 4, dilations=[30] * 2)).layers[0].claimed


def test_a_zero_weight_hides_infinity_and_nan_and_others_pass_them_on() -> None:
    """Weights that are zero take no part: 0 times infinity counts as 0, as in the pruned network one had in mind."""
    weight = np.zeros((16, 8, 1, 1), np.float32)
    weight[:, 0], weight[3, 1] = 1, 2
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    ours = open_model(network(nodes, {"w": weight}, {"x": ["n", 8, 9, 9]}))
    x = np.ones((1, 8, 9, 9), np.float32)
    x[0, 1, 4, 4], x[0, 1, 5, 5], x[0, 2] = np.inf, np.nan, np.inf
    y = ours(x=x)
    expected = np.ones((1, 16, 9, 9), np.float32)
    expected[0, 3] = 3
    expected[0, 3, 4, 4], expected[0, 3, 5, 5] = np.inf, np.nan
    np.testing.assert_array_equal(y, expected)


def test_nan_weights_count_as_weights() -> None:
    weight = WEIGHT.copy()
    weight[2, 2, 1, 1] = np.nan
    ours, dense = (open_model(one_conv(["n", 8, 9, 9], weight), with_kernels=flag) for flag in (True, False))
    x = RNG.standard_normal((1, 8, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(ours(x=x)), np.isnan(dense(x=x)))


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_runs_of_different_shapes(threads: int) -> None:
    """More shapes than plans are kept for, from several threads at once, again and again."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"], strides=[2, 2]),
    ]
    constants = {"w": WEIGHT, "v": sparse(RNG, 72, 16, 1, 1)}
    content = network(nodes, constants, {"x": ["n", 8, "h", "w"]})
    ours, dense = open_model(content, threads=threads), open_model(content, with_kernels=False)
    inputs = [
        RNG.standard_normal((int(RNG.integers(1, 4)), 8, *(int(n) for n in RNG.integers(1, 40, 2)))).astype(np.float32)
        for _ in range(24)
    ]
    expected = [dense(x=x) for x in inputs]

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(inputs)).tolist() * 3
        for i in order:
            assert_close(ours(x=inputs[i]), expected[i])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize(("size", "channels"), [(7, 128), (28, 32), (4, 64), (2, 64)])
def test_threads_do_not_change_a_bit(size: int, channels: int, threads: int, batch: int) -> None:
    weight = sparse(RNG, channels, channels, 3, 3)
    content = one_conv(["n", channels, size, size], weight, pads=[1] * 4)
    one, several = open_model(content, threads=1), open_model(content, threads=threads)
    x = RNG.standard_normal((batch, channels, size, size)).astype(np.float32)
    first = one(x=x)
    for _ in range(6):  # runs find out how many threads there are, and the next ones divide the layer among so many
        np.testing.assert_array_equal(several(x=x), first)


def test_other_types_stay_with_onnxruntime() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, ["n", 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, None)],
        [onnx.numpy_helper.from_array(np.zeros((8, 64)), "w")],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    assert open_model(content).layers[0].reason == "weights are not constant float32"
