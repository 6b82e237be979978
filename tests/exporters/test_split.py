"""Split values: exact for every pattern of bits, small for those that weights have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, TensorProto

from exporters.encodings.protocol import GraphView
from exporters.encodings.split import load_split, store_split


def graph_of(array: np.ndarray) -> GraphProto:  # type: ignore[type-arg]
    stored = store_split("v", array)
    graph = GraphProto(node=stored.nodes, initializer=stored.initializers)
    graph.initializer.extend(part for part in stored.shared.values() if isinstance(part, TensorProto))
    return graph


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_any_bits(patterns: list[int]) -> None:
    array = np.array(patterns, np.uint32).view(np.float32)
    loaded = load_split(GraphView(graph_of(array)), "v")
    assert loaded is not None
    np.testing.assert_array_equal(loaded.array.view(np.uint32), array.view(np.uint32))


def test_every_sign_and_lead_byte_of_one_exponent_window() -> None:
    patterns = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32)
    exponents = (patterns >> 23) & 255
    array = patterns[(exponents >= 100) & (exponents < 116)].view(np.float32)
    graph = graph_of(array)
    assert not any(node.op_type == "ScatterElements" for node in graph.node)
    loaded = load_split(GraphView(graph), "v")
    assert loaded is not None
    np.testing.assert_array_equal(loaded.array.view(np.uint32), array.view(np.uint32))


def test_gaussian_weights_take_28_bits() -> None:
    array = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    size = sum(tensor.ByteSize() for tensor in store_split("v", array).initializers)
    assert size * 8 / array.size == pytest.approx(28, abs=0.05)


def test_damage_is_noticed() -> None:
    graph = graph_of(np.array([1.0, 2.0, -3.0], np.float32))
    low = next(tensor for tensor in graph.initializer if tensor.name == "v.l")
    low.dims[0] = 2
    low.raw_data = low.raw_data[:4]
    with pytest.raises(ValueError, match="differ in length"):
        load_split(GraphView(graph), "v")
