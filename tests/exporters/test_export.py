"""A whole export: bits kept, nothing decoded at run time, no half-written file."""

from __future__ import annotations

import errno
import hashlib
import importlib
import math
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import nn

from exporters import ExportError, export
from exporters.export import write_model
from exporters.graph import build_graph
from exporters.inspection import inspect

DECODING = {"CumSum", "ScatterElements", "Gather", "Where", "Less", "Cast", "ConstantOfShape"}


@pytest.mark.parametrize("encoding", ["coo", "gap", "packed", "auto"])
def test_outputs_are_those_of_dense_bit_for_bit(
    sparse_graph: ModelProto, images: torch.Tensor, tmp_path: Path, encoding: str, run
) -> None:  # type: ignore[no-untyped-def]
    dense, small = tmp_path / "dense.onnx", tmp_path / "small.onnx"
    write_model(sparse_graph, dense, encoding="dense")
    report = write_model(sparse_graph, small, encoding=encoding)
    for batch in (1, 5):
        samples = images[:batch].numpy()
        expected = run(dense, samples)
        assert expected.shape == (batch, 10)
        np.testing.assert_array_equal(run(small, samples).view(np.uint32), expected.view(np.uint32))
    assert small.stat().st_size == report.size_bytes
    # metadata name the encoding, so the two files differ by a few letters
    assert abs(dense.stat().st_size - report.dense_size_bytes) <= 6
    assert report.size_bytes < report.dense_size_bytes


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("encoding", ["dense", "coo", "gap", "packed", "auto"])
def test_no_decoding_is_left_at_run_time(
    sparse_graph: ModelProto, tmp_path: Path, encoding: str, values: str, folded_nodes
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "net.onnx"
    write_model(sparse_graph, path, encoding=encoding, values=values)
    assert not DECODING & set(folded_nodes(path))


def test_full_check_passes_for_all_but_coo(sparse_graph: ModelProto, tmp_path: Path) -> None:
    for encoding in ("dense", "coo", "gap", "packed"):
        path = tmp_path / f"{encoding}.onnx"
        write_model(sparse_graph, path, encoding=encoding)
        onnx.checker.check_model(path, full_check=encoding != "coo")


def test_float16_values_round_the_weights_and_nothing_else(
    sparse_graph: ModelProto, images: torch.Tensor, tmp_path: Path, run
) -> None:  # type: ignore[no-untyped-def]
    sizes = {}
    for values in ("float32", "float16"):
        for encoding in ("dense", "gap", "packed"):
            path = tmp_path / f"{encoding}-{values}.onnx"
            sizes[encoding, values] = write_model(sparse_graph, path, encoding=encoding, values=values).size_bytes
    assert sizes["dense", "float16"] < 0.6 * sizes["dense", "float32"]
    assert sizes["gap", "float16"] < sizes["gap", "float32"]
    assert sizes["packed", "float16"] <= sizes["gap", "float16"] + 64  # metadata names the encoding
    halves = [run(tmp_path / f"{encoding}-float16.onnx", images.numpy()) for encoding in ("dense", "gap")]
    np.testing.assert_array_equal(halves[0], halves[1])
    exact = run(tmp_path / "dense-float32.onnx", images.numpy())
    assert 0 < np.abs(exact - halves[0]).max() < 0.02 * np.abs(exact).max()


def test_the_report_describes_the_file(sparse_net: nn.Module, sparse_graph: ModelProto, tmp_path: Path) -> None:
    report = write_model(sparse_graph, tmp_path / "net.onnx", encoding="gap")
    document = report.to_json()
    assert document["ratio"] == report.dense_size_bytes / report.size_bytes
    stem = next(item for item in report.tensors if item.shape == (16, 3, 3, 3))
    assert stem.encoding == "gap"
    assert stem.dense_bytes == 4 * 16 * 27
    assert stem.nonzeros == int(torch.count_nonzero(sparse_net.stem.weight))  # type: ignore[union-attr,arg-type]
    layer = next(item for item in inspect(report.path).layers if item.shape == (16, 3, 3, 3))
    assert layer.size_bytes == stem.size_bytes
    assert sum(item.size_bytes for item in report.tensors) < report.size_bytes


def properties(path: Path) -> dict[str, str]:
    return {item.key: item.value for item in onnx.load(path).metadata_props}


def test_metadata_is_in_the_file(sparse_graph: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_model(sparse_graph, path, encoding="gap", metadata={"recipe": "{}", "accuracy": "0.9"})
    found = properties(path)
    assert found.items() >= {"recipe": "{}", "accuracy": "0.9", "encoding": "gap", "values": "float32"}.items()
    assert found["torch"] == torch.__version__
    with pytest.raises(ExportError, match="metadata: 'accuracy'"):
        write_model(sparse_graph, path, metadata={"accuracy": 0.9})  # type: ignore[dict-item]


def test_the_hash_of_the_weights_depends_on_their_bits_only(sparse_graph: ModelProto, tmp_path: Path) -> None:
    hashes = {}
    for encoding, values in [("dense", "float32"), ("auto", "float32"), ("auto", "float16")]:
        write_model(sparse_graph, tmp_path / "net.onnx", encoding=encoding, values=values)
        hashes[encoding, values] = properties(tmp_path / "net.onnx")["weights_sha256"]
    assert hashes["dense", "float32"] == hashes["auto", "float32"] != hashes["auto", "float16"]
    digest = hashlib.sha256()
    for tensor in sorted(sparse_graph.graph.initializer, key=lambda item: item.name):
        if math.prod(tensor.dims) >= 16:
            digest.update(tensor.name.encode() + b"\0" + tensor.raw_data)
    assert hashes["dense", "float32"] == digest.hexdigest()


def test_the_same_model_gives_the_same_bytes(sparse_graph: ModelProto, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_model(sparse_graph, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoding": "pakced"}, "encoding: unknown name 'pakced'.*did you mean 'packed'"),
        ({"values": "float61"}, "values: unknown name 'float61'.*did you mean 'float16'"),
    ],
)
def test_wrong_arguments(
    small_net: nn.Module, images: torch.Tensor, tmp_path: Path, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(small_net, images, tmp_path / "net.onnx", **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_unusable_paths(small_net: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the folder .* does not exist"):
        export(small_net, images, tmp_path / "nowhere" / "net.onnx")
    with pytest.raises(ExportError, match="is a folder"):
        export(small_net, images, tmp_path)


def test_a_full_disk_keeps_the_old_file(
    small_net: nn.Module, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old file")

    def _full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(ExportError, match=r"cannot write .*No space left on device"):
        export(small_net, images, path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder(small_net: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ExportError, match="is not writable"):
            export(small_net, images, tmp_path / "net.onnx")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses_new_files(
    small_net: nn.Module, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _refused(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("exporters.files.tempfile.mkstemp", _refused)
    with pytest.raises(ExportError, match=r"cannot write .*Permission denied"):
        export(small_net, images, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_tensor_that_does_not_survive_stops_the_export(
    sparse_graph: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("exporters.export"), "decode", lambda graph, name: None)
    with pytest.raises(ExportError, match="did not survive"):
        write_model(sparse_graph, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_resnet18_at_90_percent(tmp_path: Path, run, folded_nodes) -> None:  # type: ignore[no-untyped-def]
    from compress_then_export.vision import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter *= torch.rand(parameter.shape) >= 0.9
            else:
                parameter.add_(0.01)
    graph = build_graph(model, torch.zeros(2, 3, 224, 224))
    samples = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    write_model(graph, tmp_path / "dense.onnx", encoding="dense")
    expected = run(tmp_path / "dense.onnx", samples)
    for encoding, ratio in (("gap", 8.5), ("packed", 9.5), ("auto", 9.5)):
        report = write_model(graph, tmp_path / "small.onnx", encoding=encoding)
        assert report.ratio > ratio
        np.testing.assert_array_equal(run(tmp_path / "small.onnx", samples).view(np.uint32), expected.view(np.uint32))
        assert folded_nodes(tmp_path / "small.onnx") == folded_nodes(tmp_path / "dense.onnx")
