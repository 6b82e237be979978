"""Every encoding gives back the exact bits: by its numpy decoder and by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters.encodings import AUTO, ENCODINGS, Encoded, GraphView
from exporters.encodings.registry import candidates, decode
from exporters.encodings.selection import encode_model
from exporters.encodings.values import rounded
from exporters.errors import ExportError
from exporters.tensors import array_tensor

EXACT = ["dense", "coo", "gap", "packed"]
EDGES = [0, 1, 14, 15, 16, 17, 29, 30, 31, 254, 255, 256, 509, 510, 511, 65534, 65535, 65536, 140_000]


def model_of(encoded: Encoded, shape: tuple[int, ...]) -> ModelProto:
    """The encoded tensor, added to an input of its shape."""
    shared = list(encoded.shared.values())
    graph = helper.make_graph(
        [
            *(part for part in shared if isinstance(part, NodeProto)),
            *encoded.nodes,
            helper.make_node("Identity", [encoded.name], ["y"]),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [*(part for part in shared if isinstance(part, TensorProto)), *encoded.initializers],
    )
    graph.sparse_initializer.extend(encoded.sparse_initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def bits(array: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def assert_restored(name: str, array: NDArray[np.float32], values: str = "float32", *, run: bool = True) -> None:
    array = rounded(array, values)
    encoded = ENCODINGS[name].encode("weight", array, values=values, prefix="/0/")
    if encoded is None:
        assert array.size == 0 or (
            name == "packed" and (values == "float16" or 2 * np.count_nonzero(array) > array.size)
        )
        return
    model = model_of(encoded, array.shape)
    onnx.checker.check_model(model, full_check=name != "coo")
    decoded = decode(GraphView(model.graph), "weight")
    assert decoded is not None
    assert decoded.encoding == name or (array.size and not array.any())
    assert decoded.shape == array.shape
    assert decoded.nonzeros == np.count_nonzero(array)
    np.testing.assert_array_equal(bits(decoded.dense().astype(np.float32)), bits(array))
    if run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(bits(np.asarray(session.run(None, {})[0])), bits(array))


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(7,), (1,), (33, 20), (8, 6, 3, 3), (4, 5, 6), (3, 0, 2)])
@pytest.mark.parametrize("name", EXACT)
def test_random_tensors(name: str, shape: tuple[int, ...], sparsity: float, values: str) -> None:
    rng = np.random.default_rng(3)
    array = rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) >= sparsity)
    assert_restored(name, array.astype(np.float32) + np.float32(0), values)


@pytest.mark.parametrize("gap", EDGES)
@pytest.mark.parametrize("name", ["coo", "gap", "packed"])
def test_gaps_at_the_edges_of_codes(name: str, gap: int) -> None:
    # zeros before, between and after; and a run of neighbours
    array = np.zeros(3 * gap + 6, np.float32)
    array[[gap, 2 * gap + 1, 2 * gap + 2, 2 * gap + 3]] = [1.5, -2.25, 3.0, -0.1]
    assert_restored(name, array)


@pytest.mark.parametrize("name", EXACT)
def test_unusual_floats_keep_their_bits(name: str) -> None:
    array = np.zeros((4, 32), np.float32)
    array[0, :6] = [-0.0, 1e-45, -1e-40, 3.4028235e38, -1.1754944e-38, 2.0**-103]
    array[1, :4] = [np.inf, -np.inf, np.nan, 1.0]
    array[3, 31] = -0.0
    assert_restored(name, array)


@pytest.mark.parametrize("name", ["gap", "packed"])
def test_attributes_that_change_the_values_are_none_of_ours(name: str) -> None:
    rng = np.random.default_rng(1)
    array = (rng.standard_normal(60_000) * (rng.random(60_000) < 0.1)).astype(np.float32) + np.float32(0)
    array[7] = 1e30  # outside the exponents of the others
    encoded = ENCODINGS[name].encode("weight", array, values="float32", prefix="/0/")
    assert encoded is not None
    model = model_of(encoded, array.shape)
    changes = [("ScatterElements", "reduction", "max"), ("ScatterElements", "axis", 0), ("Gather", "axis", 0)]
    changed = 0
    for node in model.graph.node:
        for _, key, value in (change for change in changes if change[0] == node.op_type):
            before = NodeProto()
            before.CopyFrom(node)
            kept = [item for item in before.attribute if item.name != key]
            node.ClearField("attribute")
            node.attribute.extend([*kept, helper.make_attribute(key, value)])
            assert decode(GraphView(model.graph), "weight") is None, (list(node.output), key)
            node.CopyFrom(before)
            changed += 1
    assert changed == {"gap": 4, "packed": 8}[name]
    assert decode(GraphView(model.graph), "weight") is not None


FLOAT_BITS = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(
    sparse=st.lists(st.tuples(st.integers(0, 300), FLOAT_BITS), max_size=40),
    tail=st.integers(0, 40),
    columns=st.integers(1, 5),
    name=st.sampled_from(EXACT),
)
def test_any_bits_at_any_gaps(sparse: list[tuple[int, int]], tail: int, columns: int, name: str) -> None:
    flat: list[int] = []
    for gap, pattern in sparse:
        flat += [0] * gap + [pattern]
    flat += [0] * (tail + 1)
    flat += [0] * (-len(flat) % columns)
    array = np.array(flat, np.uint32).view(np.float32).reshape(-1, columns)
    encoded = ENCODINGS[name].encode("weight", array, values="float32", prefix="/0/")
    if encoded is not None:
        decoded = decode(GraphView(model_of(encoded, array.shape).graph), "weight")
        assert decoded is not None
        np.testing.assert_array_equal(bits(decoded.dense().astype(np.float32)), bits(array))


def test_every_encoding_is_registered_under_its_name() -> None:
    assert list(ENCODINGS) == [*EXACT, "seeded"]
    assert all(name == encoding.name for name, encoding in ENCODINGS.items())


def test_packed_leaves_dense_and_half_precision_tensors_alone() -> None:
    packed = ENCODINGS["packed"]
    ones = np.ones((10, 10), np.float32)
    assert packed.encode("w", ones, values="float32", prefix="/0/") is None
    sparse = np.eye(10, dtype=np.float32)
    assert packed.encode("w", sparse, values="float16", prefix="/0/") is None
    assert packed.encode("w", sparse, values="float32", prefix="/0/") is not None


def test_own_bytes_are_what_serializing_adds() -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal((40, 50)) * (rng.random((40, 50)) < 0.1)).astype(np.float32) + np.float32(0)
    for name in EXACT:
        encoded = ENCODINGS[name].encode("weight", array, values="float32", prefix="/0/")
        assert encoded is not None
        whole = model_of(encoded, array.shape).graph
        bare = onnx.GraphProto()
        bare.CopyFrom(whole)
        del bare.initializer[:], bare.sparse_initializer[:]
        del bare.node[:]
        bare.node.append(whole.node[-1])
        assert encoded.size_bytes({}) == whole.ByteSize() - bare.ByteSize(), name


def dense_model(arrays: dict[str, NDArray[np.float32]]) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}.y"]) for name in arrays],
        "g",
        [],
        [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, a.shape) for name, a in arrays.items()],
        [array_tensor(name, array) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_auto_is_never_larger_than_any_portable_encoding() -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for index, (size, density) in enumerate(
        [(20, 0.5), (400, 0.05), (4000, 0.5), (60_000, 0.1), (9000, 0.01), (9000, 1)]
    ):
        mask = rng.random(size) < density
        arrays[f"t{index}"] = (rng.standard_normal(size) * mask).astype(np.float32) + np.float32(0)
    sizes = {}
    for name in [AUTO, "dense", "gap", "packed"]:
        model = dense_model(arrays)
        chosen = encode_model(model, candidates(name), "float32")
        onnx.checker.check_model(model, full_check=True)
        sizes[name] = model.ByteSize()
        if name == AUTO:
            assert {encoded.encoding for encoded in chosen.values()} == {"dense", "gap", "packed"}
    assert sizes[AUTO] == min(sizes.values())


def test_auto_pays_for_a_shared_table_that_no_single_tensor_would_buy() -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for index in range(12):
        mask = rng.random(20_000) < 0.1
        arrays[f"t{index}"] = (rng.standard_normal(20_000) * mask).astype(np.float32) + np.float32(0)
    model, alone = dense_model(arrays), dense_model({"t0": arrays["t0"]})
    assert {e.encoding for e in encode_model(alone, candidates(AUTO), "float32").values()} == {"gap"}
    assert {e.encoding for e in encode_model(model, candidates(AUTO), "float32").values()} == {"packed"}


def test_a_dead_input_channel_makes_another_axis_order_smaller() -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((32, 64, 3, 3)).astype(np.float32)
    array[:, 4:] = 0
    encoded = ENCODINGS["gap"].encode("weight", array, values="float32", prefix="/0/")
    assert encoded is not None
    assert encoded.nodes[-1].op_type == "Transpose"
    assert_restored("gap", array)


def test_equal_sizes_share_their_block_of_zeros() -> None:
    rng = np.random.default_rng(0)
    arrays = {f"t{i}": (rng.standard_normal(4000) * (rng.random(4000) < 0.1)).astype(np.float32) for i in range(3)}
    model = dense_model(arrays)
    encode_model(model, candidates("gap"), "float32")
    assert sum(node.op_type == "ConstantOfShape" for node in model.graph.node) == 1
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))


def test_float16_overflow_keeps_a_tensor_float32() -> None:
    model = dense_model({"big": np.full((8, 8), 1e6, np.float32), "fine": np.full((8, 8), 0.1, np.float32)})
    chosen = encode_model(model, candidates("dense"), "float16")
    assert chosen["big"].initializers[0].data_type == TensorProto.FLOAT
    assert chosen["fine"].initializers[0].data_type == TensorProto.FLOAT16


def test_taken_names_are_refused() -> None:
    model = dense_model({"/axis": np.ones((8, 8), np.float32)})
    with pytest.raises(ExportError, match="reserved"):
        encode_model(model, candidates("gap"), "float32")


def test_unknown_encoding_suggests_the_nearest() -> None:
    with pytest.raises(ExportError, match=r"encoding: unknown name 'gab'.*did you mean 'gap'"):
        candidates("gab")
