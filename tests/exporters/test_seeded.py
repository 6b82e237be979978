"""Seeded files: small, bit-identical to the materialised ones, folded at load time, not to be fooled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from compress.frozen import DISTRIBUTIONS, FrozenValues, frozen_values
from exporters import ExportError, export
from exporters.encodings.generator import BITS, Source, generate, indices, unit_values
from exporters.encodings.protocol import GraphView
from exporters.encodings.registry import decode
from exporters.export import write_model
from exporters.graph import build_graph
from exporters.inspection import inspect
from exporters.seeds import folded_factor

SEED = 0xDEADBEEF
DECODING = {"BitwiseXor", "BitwiseAnd", "CumSum", "ScatterElements", "Gather", "Mod", "Div", "Cast", "Expand"}
SIZES = (500, 6144, 40_000)


class Net(nn.Module):
    """Convolutions with a BatchNorm behind them and without, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 64, 3, groups=2)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.norm2 = nn.BatchNorm2d(32)
        self.hidden = nn.Linear(32, 100)
        self.norm3 = nn.BatchNorm1d(100)
        self.head = nn.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.grouped(x))
        x = torch.relu(self.norm2(self.up(x)))
        return torch.as_tensor(self.head(torch.relu(self.norm3(self.hidden(x.mean((2, 3)))))))


Seeds = Mapping[str, Mapping[str, Any]]


def frozen_net(distribution: str = "xavier_normal", share: float = 0.95) -> tuple[nn.Module, Seeds]:
    """A network of which all but a share of 1 - ``share`` is frozen, and the records of its seeds."""
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net().eval()
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.dim() >= 2}
    frozen = frozen_values(SEED, weights, distribution)
    with torch.no_grad():
        for name, parameter in weights.items():
            trained = torch.rand(parameter.shape, generator=generator) >= share
            parameter.copy_(torch.where(trained, parameter, frozen[name].tensor()))
        for norm in (model.norm, model.norm2, model.norm3):
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.weight.copy_(torch.randn(norm.weight.shape, generator=generator))
            norm.running_mean.copy_(torch.randn(norm.weight.shape, generator=generator))
            norm.running_var.copy_(torch.rand(norm.weight.shape, generator=generator) + 0.1)
    return model, {name: item.to_json() for name, item in frozen.items()}


IMAGES = np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32)


def written(folder: Path, model: nn.Module, seeds: Seeds) -> tuple[Path, Path]:
    """The dense and the seeded file of a model that is traced once for both."""
    graph = build_graph(model, torch.zeros(2, 3, 12, 12))
    parameters = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    write_model(graph, folder / "dense.onnx", encoding="dense")
    write_model(graph, folder / "seeded.onnx", encoding="seeded", seeds=seeds, parameters=parameters)
    return folder / "dense.onnx", folder / "seeded.onnx"


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return written(tmp_path_factory.mktemp(request.param), *frozen_net(request.param))


def test_outputs_are_those_of_dense_bit_for_bit(files: tuple[Path, Path], run) -> None:  # type: ignore[no-untyped-def]
    dense, seeded = files
    np.testing.assert_array_equal(run(dense, IMAGES).view(np.uint32), run(seeded, IMAGES).view(np.uint32))
    assert seeded.stat().st_size < 0.4 * dense.stat().st_size


def test_the_executed_graph_is_that_of_the_dense_file(files: tuple[Path, Path], folded_nodes) -> None:  # type: ignore[no-untyped-def]
    dense, seeded = files
    nodes = folded_nodes(seeded)
    assert not DECODING & set(nodes)
    assert nodes == folded_nodes(dense)


def test_other_runtimes_read_the_same_weights(files: tuple[Path, Path]) -> None:
    openvino = pytest.importorskip("openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    found = []
    for path in files:
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
        reference = ReferenceEvaluator(onnx.load(path)).run(None, {"input": IMAGES})
        found.append((np.array(compiled([IMAGES])[0]), np.asarray(reference[0])))
    for dense, seeded in zip(*found, strict=True):
        np.testing.assert_array_equal(dense, seeded)


def test_inspect_counts_frozen_weights_as_parameters(files: tuple[Path, Path]) -> None:
    dense, seeded = (inspect(path) for path in files)
    assert {layer.encoding for layer in seeded.layers} == {"seeded"}
    assert [layer.name for layer in seeded.layers] == [layer.name for layer in dense.layers]
    for name in ("parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity"):
        assert getattr(seeded, name) == getattr(dense, name), name
    assert seeded.metadata["weights_sha256"] == dense.metadata["weights_sha256"]


def test_float16_rounds_trained_values_only(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    model, seeds = frozen_net()
    half = tmp_path / "half.onnx"
    report = export(model, torch.zeros(2, 3, 12, 12), half, values="float16", seeds=seeds)
    assert {item.values for item in report.tensors if item.encoding == "seeded"} == {"float16"}
    with torch.no_grad():
        outputs = model(torch.from_numpy(IMAGES)).numpy()
    assert 0 < np.abs(run(half, IMAGES) - outputs).max() < 0.01 * np.abs(outputs).max()
    view = GraphView(onnx.load(half).graph)
    name = "grouped.weight"  # no BatchNorm is folded into it
    restored = decode(view, name)
    assert restored is not None and restored.encoding == "seeded"
    frozen = FrozenValues.from_json(seeds[name]).array()
    original = dict(model.named_parameters())[name].detach().numpy()
    expected = np.where(frozen == original, frozen, original.astype(np.float16).astype(np.float32))
    # the first element always has a value
    expected.reshape(-1)[0] = np.float32(np.float16(original.reshape(-1)[0]))
    np.testing.assert_array_equal(restored.dense(), expected)


def test_auto_takes_it_where_it_is_smallest(tmp_path: Path) -> None:
    model, seeds = frozen_net()
    with torch.no_grad():
        model.grouped.weight.normal_()  # type: ignore[union-attr,operator]
        model.head.weight *= torch.rand(10, 100) < 0.1  # type: ignore[operator]
    report = export(model, torch.zeros(2, 3, 12, 12), tmp_path / "net.onnx", seeds=seeds)
    found = {item.name: item.encoding for item in report.tensors}
    assert found["grouped.weight"] == "dense"
    assert found["head.weight"] in ("gap", "packed")
    assert found["up.weight"] == found["hidden.weight"] == "seeded"


def test_trained_zeros_and_a_tensor_without_trained_values(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    model, seeds = frozen_net(share=1.0)
    with torch.no_grad():
        model.grouped.weight[5:9] = 0.0  # type: ignore[index,operator]
        model.hidden.weight[0, 0] = 0.0  # type: ignore[index,operator]
    dense, seeded = written(tmp_path, model, seeds)
    np.testing.assert_array_equal(run(dense, IMAGES), run(seeded, IMAGES))
    assert inspect(seeded).nonzero_parameters == inspect(dense).nonzero_parameters
    outputs = [node.output[0] for node in onnx.load(seeded).graph.node if node.op_type == "ScatterElements"]
    assert sum(name.endswith("/f") for name in outputs) == 2


def test_names_of_the_graph_are_avoided(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    frozen = frozen_values(1, {"S": (60, 100)})["S"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "S"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 60])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 100])],
        [onnx.numpy_helper.from_array(frozen.array(), "S")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    report = write_model(model, tmp_path / "net.onnx", encoding="seeded", seeds={"S": frozen.to_json()})
    assert [item.encoding for item in report.tensors] == ["seeded"]
    samples = np.ones((2, 60), np.float32)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", samples), samples @ frozen.array(), rtol=1e-5, atol=1e-6)


class Unread(nn.Module):
    """A linear layer with an input that it does not read, called as the generator calls its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 100)

    def forward(self, image: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(image))


@pytest.mark.parametrize("encoding", ["auto", "seeded"])
def test_inputs_that_nothing_reads_are_avoided_too(tmp_path: Path, encoding: str) -> None:
    model = Unread()
    frozen = frozen_values(1, {"fc.weight": model.fc.weight})["fc.weight"]
    with torch.no_grad():
        model.fc.weight.copy_(frozen.tensor())
    samples = (torch.zeros(2, 64), torch.zeros(2, 1))
    seeds = {"fc.weight": frozen.to_json()}
    report = export(model, samples, tmp_path / "net.onnx", encoding=encoding, seeds=seeds)
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [item.encoding for item in report.tensors if item.name == "fc.weight"] == ["seeded"]
    assert "y" in [value.name for value in graph.input]
    assert "y" not in [name for node in graph.node for name in node.output]


@pytest.mark.parametrize("distribution", BITS)
def test_both_rooms_have_the_same_numbers(distribution: str) -> None:
    for stream, size in ((0, 1), (7, 6143), (8191, 900_001)):
        frozen = FrozenValues(seed=SEED, stream=stream, distribution=distribution, scale=1.0, shape=(size,))
        chosen = indices(SEED, distribution, Source(stream=stream, size=size))
        np.testing.assert_array_equal(unit_values(distribution)[chosen], frozen.array())


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 0x1BD11BDA])
def test_the_graph_has_the_numbers_of_any_seed(seed: int) -> None:
    sources = [Source(stream=stream, size=size) for stream, size in zip((8191, 0, 5), SIZES, strict=True)]
    generator = generate(seed, "kaiming_uniform", sources, prefix="")
    parts = list(generator.parts.values())
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, [size])
        for name, size in zip(generator.indices, SIZES, strict=True)
    ]
    nodes = [part for part in parts if isinstance(part, NodeProto)]
    constants = [part for part in parts if isinstance(part, TensorProto)]
    graph = helper.make_graph(nodes, "g", [], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    for source, found in zip(sources, ReferenceEvaluator(model).run(None, {}), strict=True):
        np.testing.assert_array_equal(found, indices(seed, "kaiming_uniform", source))


def test_the_generator_is_small() -> None:
    sources = [Source(stream=stream, size=size) for stream, size in enumerate((500, 25_000, 400_000, 5000))]
    generator = generate(SEED, "xavier_normal", sources, prefix="")
    assert sum(part.ByteSize() for part in generator.parts.values()) < 4600


def test_the_factor_of_a_channel_is_found_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 30, 3, 3)).astype(np.float32)
    for shape in ((40, 1, 1, 1), (1, 30, 1, 1)):
        factor = rng.standard_normal(shape).astype(np.float32)
        found = folded_factor(weights, weights * factor)
        assert found is not None and found.shape == shape
        np.testing.assert_array_equal(weights * found, weights * factor)
    broken = weights * factor
    broken[3, 4, 1, 1] = np.nextafter(broken[3, 4, 1, 1], np.float32(9))
    assert folded_factor(weights, broken) is None
    assert folded_factor(weights, weights * np.float32(0)) is None


def test_parameters_of_another_type_take_another_encoding(tmp_path: Path) -> None:
    layer = nn.Linear(64, 100)
    frozen = frozen_values(1, {"weight": layer.weight})["weight"]
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        report = export(
            layer.to(kind), torch.zeros(2, 64, dtype=kind), tmp_path / "net.onnx", seeds={"weight": frozen.to_json()}
        )
        assert "seeded" not in [item.encoding for item in report.tensors]


def test_values_of_another_seed_are_said_and_take_another_encoding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = nn.Linear(64, 100)
    frozen = frozen_values(1, {"weight": layer.weight})["weight"]
    report = export(
        layer, torch.zeros(2, 64), tmp_path / "net.onnx", encoding="seeded", seeds={"weight": frozen.to_json()}
    )
    assert {item.encoding for item in report.tensors} == {"dense"}
    assert [record.levelname for record in caplog.records if record.name == "exporters.seeds"] == ["WARNING"]
    assert "weight does not hold the values of its seed" in caplog.text


def errors() -> list[tuple[dict[str, Any], str]]:
    _, seeds = frozen_net()
    name = "hidden.weight"
    record = dict(seeds[name])

    def changed(**entries: Any) -> dict[str, Any]:
        return {"seeds": {**seeds, name: {**record, **entries}}}

    return [
        ({"seeds": None}, "encoding: 'seeded' needs the seeds"),
        ({"seeds": {}}, "encoding: 'seeded' needs the seeds"),
        ({"seeds": {"hiden.weight": record}}, r"seeds: the model has no parameter 'hiden.weight'; did you mean 'hidd"),
        (changed(shape=[32, 100]), r"seeds: 'hidden.weight' was frozen with shape \[32, 100\] but has \[100, 32\]"),
        (changed(shape="big"), "seeds: shape 'big'"),
        (
            changed(shape=[100.0, 32.0]),
            r"seeds: shape \[100.0, 32.0\] of 'hidden.weight' is not a list of whole numbers",
        ),
        (changed(seed=-1), "seeds: seed -1"),
        (changed(seed=True), "seeds: seed True"),
        (changed(stream=8192), "seeds: stream 8192"),
        (changed(scale=0.1), "seeds: scale 0.1"),
        (changed(scale=None), "seeds: scale None"),
        (changed(distribution="normal"), "seeds: distribution 'normal'"),
        (changed(distribution=["x"]), r"seeds: distribution \['x'\] of 'hidden.weight' is not one of"),
        (changed(seed=1), "seeds: all parameters of a file need the same seed"),
        ({"seeds": {name: {"seed": 1}}}, "seeds: the record of 'hidden.weight' lacks distribution"),
        ({"seeds": {name: 5}}, "seeds: the record of 'hidden.weight' is no mapping"),
    ]


@pytest.mark.parametrize(("change", "message"), errors())
def test_wrong_seeds_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model, _ = frozen_net()
    with pytest.raises(ExportError, match=f"^{message}"):
        export(model, torch.zeros(2, 3, 12, 12), tmp_path / "net.onnx", encoding="seeded", **change)
    assert not list(tmp_path.iterdir())
