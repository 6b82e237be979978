"""Figures of known networks, foreign files, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper
from torch import nn

from exporters import export
from exporters.export import write_model
from exporters.inspection import inspect
from exporters.tensors import array_tensor, integers_tensor

ENCODINGS = ["dense", "coo", "gap", "packed", "auto"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_figures_do_not_depend_on_the_encoding(
    sparse_net: nn.Module, sparse_graph: ModelProto, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "net.onnx"
    write_model(sparse_graph, path, encoding=encoding)
    report = inspect(path)
    stem, grouped, up, head = (report.layers[i] for i in range(4))
    assert [layer.op for layer in report.layers] == ["Conv", "Conv", "ConvTranspose", "Gemm"]
    assert (stem.shape, stem.macs) == ((16, 3, 3, 3), 16 * 27 * 12 * 12)
    assert (grouped.shape, grouped.macs) == ((32, 4, 3, 3), 32 * 36 * 10 * 10)
    assert (up.shape, up.macs) == ((32, 16, 2, 2), 32 * 16 * 4 * 10 * 10)
    assert (head.shape, head.macs, head.parameters) == ((10, 16), 160, 170)
    assert report.macs == stem.macs + grouped.macs + up.macs + 160  # type: ignore[operator]
    # weights, the folded biases, and the four vectors of the BatchNorm that survives
    assert report.parameters == 16 * 27 + 16 + 4 * 16 + 32 * 36 + 32 + 32 * 64 + 16 + 170
    kept = int(torch.count_nonzero(sparse_net.grouped.weight))  # type: ignore[union-attr,arg-type]
    assert grouped.nonzero_macs == kept * 100
    assert grouped.sparsity == pytest.approx(1 - kept / (32 * 36))
    assert report.size_bytes == path.stat().st_size
    document = json.loads(json.dumps(report.to_json()))
    assert document["layers"][0]["shape"] == [16, 3, 3, 3]
    assert set(report.figures()) <= set(document)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # parameters: torchvision's count less one scale a normalised channel, which folding removes
        pytest.param("resnet18", 11_689_512 - 4_800, 1_814_073_344, marks=pytest.mark.slow),
        ("mobilenet_v2", 3_504_872 - 17_056, 300_774_272),
    ],
)
def test_known_networks(name: str, parameters: int, macs: int, tmp_path: Path) -> None:
    from compress_then_export.vision import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases of zero would be left out of the file
                parameter.uniform_(0.5, 1.5)
    path = tmp_path / "net.onnx"
    export(model, torch.randn(1, 3, 224, 224), path, encoding="dense")
    report = inspect(path)
    assert report.macs == report.nonzero_macs == macs
    assert report.parameters == parameters


def test_a_fixed_batch_is_divided_out(small_net: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    export(small_net, images, tmp_path / "free.onnx")
    export(small_net, images, tmp_path / "fixed.onnx", dynamic_batch=False)
    assert inspect(tmp_path / "free.onnx").macs == inspect(tmp_path / "fixed.onnx").macs


def save(path: Path, nodes: list[onnx.NodeProto], tensors: list[TensorProto], shape: list[int | str]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return model


WEIGHT = np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0], [0, 6, 0]], np.float32)  # 4 inputs, 3 outputs


@pytest.mark.parametrize(
    ("nodes", "tensors", "shape", "macs"),
    [
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHT], ["n", 7, 4], 7 * 12),
        ([helper.make_node("MatMul", ["w", "x"], ["y"])], [WEIGHT.T], [4, 5], 5 * 12),
        ([helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)], [WEIGHT], [4, 6], 6 * 12),
        ([helper.make_node("Gemm", ["w", "x"], ["y"], transA=1, transB=1)], [WEIGHT], [5, 4], 5 * 12),
        (
            [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])],
            [WEIGHT.T],
            ["n", 4],
            12,
        ),
    ],
)
def test_foreign_matrix_products(
    nodes: list[onnx.NodeProto],
    tensors: list[np.ndarray],  # type: ignore[type-arg]
    shape: list[int | str],
    macs: int,
    tmp_path: Path,
) -> None:
    save(tmp_path / "f.onnx", nodes, [array_tensor("w", array) for array in tensors], shape)
    report = inspect(tmp_path / "f.onnx")
    assert (report.parameters, report.nonzero_parameters) == (12, 6)
    assert report.macs == macs
    assert report.nonzero_macs == macs // 2


def test_foreign_constant_nodes_and_half_precision(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["h"], value=array_tensor("", WEIGHT.astype(np.float16)))
    nodes = [
        constant,
        helper.make_node("Cast", ["h"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    save(tmp_path / "f.onnx", nodes, [], [1, 4])
    report = inspect(tmp_path / "f.onnx")
    assert (report.parameters, report.nonzero_parameters, report.macs) == (12, 6, 12)


def test_a_network_without_shapes_has_unknown_macs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    save(tmp_path / "f.onnx", nodes, [array_tensor("w", np.ones((2, 3, 3, 3), np.float32))], ["n", 3, "h", "w"])
    report = inspect(tmp_path / "f.onnx")
    assert report.macs is None and report.layers[0].macs is None
    assert report.parameters == 54


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a"])
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="not an ONNX file"):
        inspect(tmp_path / "f.onnx")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*No such file"):
        inspect(tmp_path / "f.onnx")
    with pytest.raises(ValueError, match="cannot read"):
        inspect(tmp_path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_truncated_and_flipped_files_give_a_value_error_or_a_report(
    sparse_graph: ModelProto, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "net.onnx"
    write_model(sparse_graph, path, encoding=encoding)
    content = path.read_bytes()
    damaged = tmp_path / "damaged.onnx"
    for share in (0.1, 0.5, 0.9, 0.999):
        damaged.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError):
            inspect(damaged)
    rng = np.random.default_rng(0)
    for _ in range(60):
        flipped = bytearray(content)
        flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(flipped)
        try:
            inspect(damaged)
        except ValueError as error:
            assert str(error).count("\n") == 0


def test_a_tiny_file_cannot_ask_for_terabytes(tmp_path: Path) -> None:
    huge = 2**40
    dense = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[huge, huge], raw_data=b"\0" * 64)
    save(tmp_path / "dense.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [dense], [1, 4])
    with pytest.raises(ValueError, match="announces"):
        inspect(tmp_path / "dense.onnx")

    zeros = [helper.make_node("ConstantOfShape", ["s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    save(tmp_path / "zeros.onnx", zeros, [integers_tensor("s", [huge, huge])], [1, huge])
    report = inspect(tmp_path / "zeros.onnx")
    assert (report.parameters, report.nonzero_parameters) == (huge * huge, 0)

    graph = save(tmp_path / "sparse.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [], [1, huge])
    sparse = graph.graph.sparse_initializer.add(dims=[huge, 2**20])
    sparse.values.CopyFrom(array_tensor("w", np.ones(2, np.float32)))
    sparse.indices.CopyFrom(integers_tensor("", [5, 2**55]))
    (tmp_path / "sparse.onnx").write_bytes(graph.SerializeToString())
    assert inspect(tmp_path / "sparse.onnx").nonzero_parameters == 2


def test_external_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    save(tmp_path / "f.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor], [1, 4])
    with pytest.raises(ValueError, match="external data file; save the model as one file"):
        inspect(tmp_path / "f.onnx")


def corrupt(model: ModelProto, name: str, change: dict[str, object]) -> None:
    tensor = next(item for item in model.graph.initializer if item.name.endswith(name))
    for field, value in change.items():
        if field == "dims":
            tensor.dims[:] = value  # type: ignore[assignment]
        else:
            setattr(tensor, field, value)


def test_gap_codes_that_leave_the_tensor_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        model.weight *= torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) < 0.1
    export(model, torch.randn(1, 64), tmp_path / "f.onnx", encoding="gap")
    good = onnx.load(tmp_path / "f.onnx")
    codes = next(item for item in good.graph.initializer if item.name.endswith("/c"))
    bad = ModelProto()
    bad.CopyFrom(good)
    corrupt(bad, "/c", {"raw_data": b"\xff" * len(codes.raw_data)})
    (tmp_path / "bad.onnx").write_bytes(bad.SerializeToString())
    with pytest.raises(ValueError, match="gap-coded tensor"):
        inspect(tmp_path / "bad.onnx")
    bad.CopyFrom(good)
    corrupt(bad, "/v", {"raw_data": b"\0" * 8, "dims": [2]})
    (tmp_path / "bad.onnx").write_bytes(bad.SerializeToString())
    with pytest.raises(ValueError, match="codes for 2 values"):
        inspect(tmp_path / "bad.onnx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_random_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.onnx").write_bytes(content)
    with pytest.raises(ValueError):
        inspect(tmp_path / "f.onnx")
