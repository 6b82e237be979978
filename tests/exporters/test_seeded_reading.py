"""Reading seeded files that are damaged, changed, or made to be dear."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import nn

from compress.frozen import FrozenValues, frozen_values
from exporters.encodings import recovery
from exporters.encodings.gap import shared_shape
from exporters.encodings.generator import Source, generate
from exporters.encodings.protocol import GraphView
from exporters.encodings.registry import decode
from exporters.export import write_model
from exporters.graph import build_graph
from exporters.inspection import inspect_model
from exporters.seeds import LARGEST
from exporters.tensors import array_tensor


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """One seeded linear layer."""
    layer = nn.Linear(80, 60)
    frozen = frozen_values(5, {"weight": layer.weight})["weight"]
    with torch.no_grad():
        layer.weight.copy_(frozen.tensor())
        layer.weight[::7, ::5] = 0.5
    model = build_graph(layer, torch.zeros(2, 80))
    path = tmp_path_factory.mktemp("small") / "layer.onnx"
    write_model(model, path, encoding="seeded", seeds={"weight": frozen.to_json()})
    return onnx.load(path)


def test_a_changed_generator_is_none_of_ours(small: ModelProto) -> None:
    assert decode(GraphView(small.graph), "weight") is not None
    rounds = [index for index, node in enumerate(small.graph.node) if node.op_type == "BitwiseXor"]
    for index in (rounds[0], rounds[-1]):
        changed = copy.deepcopy(small)
        changed.graph.node[index].op_type = "BitwiseOr"
        assert decode(GraphView(changed.graph), "weight") is None
    constants = [index for index, tensor in enumerate(small.graph.initializer) if tensor.name in "SAJN"]
    assert len(constants) == 4
    for index in constants:
        for content in (b"\xff" * 8, b"\1\0\0\0", b""):
            changed = copy.deepcopy(small)
            tensor = changed.graph.initializer[index]
            tensor.ClearField("int64_data")
            tensor.raw_data = content
            try:
                assert decode(GraphView(changed.graph), "weight") is None
            except ValueError as error:
                assert tensor.name in str(error)


def test_announced_shapes_are_not_believed(small: ModelProto) -> None:
    changed = copy.deepcopy(small)
    for tensor in changed.graph.initializer:
        if tensor.name.startswith("/shape/"):
            tensor.ClearField("int64_data")
            tensor.int64_data.extend([2**31, 2**31])
    with pytest.raises(ValueError, match="does not fit its size 4800"):
        inspect_model(changed, size_bytes=1)


def test_nothing_is_regenerated_to_be_counted(small: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NDArray[np.float32]:
        raise AssertionError("regenerated")

    monkeypatch.setattr("exporters.encodings.recovery.indices", refuse)
    report = inspect_model(small, size_bytes=1)
    assert report.nonzero_parameters == report.parameters == 80 * 60 + 60


def replaced(model: ModelProto, arrays: dict[str, NDArray[np.generic]]) -> ModelProto:
    """A copy of ``model`` with other constants."""
    changed = copy.deepcopy(model)
    for tensor in changed.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(array_tensor(tensor.name, arrays[tensor.name]))
    return changed


def with_factor(model: ModelProto, shape: tuple[int, ...]) -> ModelProto:
    """A copy of ``model`` whose weight is multiplied by ones of that shape."""
    changed = copy.deepcopy(model)
    reshape = next(node for node in changed.graph.node if "weight" in node.output)
    reshape.output[0] = "/0/r"
    changed.graph.node.append(helper.make_node("Mul", ["/0/r", "/0/m"], ["weight"]))
    changed.graph.initializer.append(array_tensor("/0/m", np.ones(shape, np.float32)))
    return changed


def test_a_factor_of_no_channel_is_damage(small: ModelProto) -> None:
    decoded = decode(GraphView(with_factor(small, (60, 1)).graph), "weight")
    assert decoded is not None and decoded.encoding == "seeded"
    for shape in ((0, 1), (1, 0), (60, 80), (60,), (59, 1)):
        with pytest.raises(ValueError, match="'/0/m' does not hold one number"):
            inspect_model(with_factor(small, shape), size_bytes=1)


def test_no_values_at_no_positions_are_damage(small: ModelProto) -> None:
    empty = {"/0/c": np.zeros(0, np.uint8), "/0/v": np.zeros(0, np.float32)}
    with pytest.raises(ValueError, match="'weight': its trained values have no positions"):
        inspect_model(replaced(small, empty), size_bytes=1)


@pytest.mark.parametrize("operator", ["ScatterElements", "Gather"])
def test_attributes_that_change_the_values_are_none_of_ours(small: ModelProto, operator: str) -> None:
    attributes = {"ScatterElements": {"reduction": "add"}, "Gather": {"axis": 0}}
    nodes = [index for index, node in enumerate(small.graph.node) if node.op_type == operator]
    assert nodes
    for index in nodes:
        changed = copy.deepcopy(small)
        changed.graph.node[index].ClearField("attribute")
        for name, value in attributes[operator].items():
            changed.graph.node[index].attribute.append(helper.make_attribute(name, value))
        if changed != small:  # the codes' own scatter adds in any case
            assert decode(GraphView(changed.graph), "weight") is None, changed.graph.node[index].output


def generated(sources: list[Source]) -> ModelProto:
    """Tensors t0, t1, ... of ±1 without trained values."""
    generator = generate(5, "signed_constant", sources, prefix="")
    parts = dict(generator.parts)
    parts["/k"] = array_tensor("/k", np.asarray(1, np.float32))
    nodes = [helper.make_node("Mul", [generator.table, "/k"], ["/b"])]
    for index, (chosen, source) in enumerate(zip(generator.indices, sources, strict=True)):
        nodes.append(helper.make_node("Gather", ["/b", chosen], [f"/{index}/g"]))
        nodes.append(helper.make_node("Reshape", [f"/{index}/g", shared_shape([source.size], parts)], [f"t{index}"]))
    nodes = [*(part for part in parts.values() if isinstance(part, NodeProto)), *nodes]
    constants = [part for part in parts.values() if isinstance(part, TensorProto)]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], constants))


def test_a_generator_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object, **options: object) -> object:
        calls.append(args)
        return generate(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(recovery, "generate", counted)
    sources = [Source(stream=stream, size=6144) for stream in (3, 1, 4, 0, 5)]
    view = GraphView(generated(sources).graph)
    found = [decode(view, f"t{index}") for index in range(len(sources))]
    assert len(calls) <= 3  # one for each distribution
    assert len({id(item.shared) for item in found if item is not None}) == 1
    for item, source in zip(found, sources, strict=True):
        assert item is not None
        np.testing.assert_array_equal(
            item.dense(),
            FrozenValues(
                seed=5, stream=source.stream, distribution="signed_constant", scale=1.0, shape=(source.size,)
            ).array(),
        )


def test_more_weights_than_a_file_regenerates_are_refused() -> None:
    half = LARGEST // 2
    most = generated([Source(stream=0, size=half), Source(stream=1, size=half)])
    assert inspect_model(most, size_bytes=1).parameters == LARGEST
    more = generated([Source(stream=0, size=half), Source(stream=1, size=half + 1)])
    with pytest.raises(ValueError, match="regenerates 67108865 weights, more than 67108864"):
        inspect_model(more, size_bytes=1)
