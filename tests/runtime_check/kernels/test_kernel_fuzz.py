"""Attributes, weights and inputs that nobody meant: an exception, no claim, or the dense result; never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_files import assert_close, network, open_model
from onnx import helper

SIZES = st.integers(0, 6)
ODD = st.sampled_from([0, -1, 1 << 15, (1 << 15) + 1, 1 << 31, (1 << 31) + 1, 1 << 62, -(1 << 62)])


def numbers(length: int, usual: st.SearchStrategy[int], wild: bool) -> st.SearchStrategy[list[int] | None]:
    """A list as it should be, or none; where `wild`, perhaps one with an odd entry or of another length."""
    good = st.lists(usual, min_size=length, max_size=length) | st.none()
    odd = st.lists(usual | ODD, min_size=length, max_size=length)
    return good | odd | st.lists(usual, min_size=1, max_size=length + 2) if wild else good


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[bytes, list[np.ndarray]]:
    shape = [draw(st.integers(1, 20)), *(draw(st.integers(1, 5)) for _ in range(3))]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    weight = (rng.standard_normal(shape) * (rng.random(shape) < draw(st.sampled_from([0, 0.2, 1])))).astype(np.float32)
    if draw(st.integers(0, 9)) == 0:
        weight.flat[0] = draw(st.sampled_from([3e38, 1e-42]))
    wild = draw(st.booleans())
    attributes: dict[str, Any] = {
        "strides": draw(numbers(2, st.integers(1, 3), wild)),
        "dilations": draw(numbers(2, st.integers(1, 3), wild)),
        "pads": draw(numbers(4, st.integers(0, 3), wild)),
        "kernel_shape": draw(numbers(2, st.integers(1, 5), True) if wild else st.just(shape[2:])),
        "group": draw(st.sampled_from([1, 0, 2, -1, shape[0], 1 << 40] if wild else [1, shape[0]])),
        "auto_pad": draw(st.sampled_from([None, None, None, "NOTSET", "VALID", "SAME_UPPER", "NONSENSE"])),
    }
    inputs, constants = ["x", "w"], {"w": weight}
    if draw(st.booleans()):
        inputs.append("b")
        constants["b"] = rng.standard_normal(draw(st.sampled_from([shape[0], shape[0], 1, shape[0] + 1]))).astype(
            np.float32
        )
    nodes = [helper.make_node("Conv", inputs, ["c"], **{k: v for k, v in attributes.items() if v is not None})]
    nodes.append(helper.make_node(draw(st.sampled_from(["Relu", "Clip", "Identity"])), ["c"], ["y"]))
    images = [
        rng.standard_normal((draw(SIZES), shape[1] + draw(st.sampled_from([0, 0, 0, 1])), draw(SIZES), draw(SIZES) + 2))
        for _ in range(3)
    ]
    content = network(nodes, constants, {"x": ["n", "c", "h", "w2"]})
    return content, [image.astype(np.float32) for image in images]


@given(convolutions())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_file_says(drawn: tuple[bytes, list[np.ndarray]]) -> None:
    content, images = drawn
    try:
        ours, dense = open_model(content), open_model(content, with_kernels=False)
    except Exception:
        return  # onnxruntime refuses the file with or without us
    for image in images:
        try:
            expected = dense(x=image)
        except Exception:
            expected = None
        try:
            actual = ours(x=image)
        except Exception:
            actual = None
        if expected is None or not np.isfinite(expected).all():
            continue
        assert actual is not None or expected.size == 0
        if actual is not None:
            assert_close(actual, expected)
