"""Whole networks through the sparse kernels: the exporter's files, every encoding, against stock onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress_then_export.models import build, describe
from exporters import export
from runtime_check import kernels, load


@pytest.fixture(autouse=True)
def _built() -> None:
    if not kernels.status().available:
        pytest.skip(f"sparse kernels: {kernels.status().reason}")


def pruned(source: str, sparsity: float) -> nn.Module:
    """Random weights, all but a share of every convolution's and linear layer's zero; statistics of real inputs."""
    torch.manual_seed(0)
    model = build(source).train()
    model(torch.randn(4, *image(source)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter *= torch.rand(parameter.shape) >= sparsity
    return model.eval()


def image(source: str) -> tuple[int, ...]:
    return tuple(describe(source).input_shape or (3, 224, 224))


def compare(source: str, sparsity: float, encoding: str, folder: Path, *, batches: tuple[int, ...]) -> int:
    """Outputs must agree for every batch size; returns how many layers the kernels ran."""
    path = folder / f"{encoding}.onnx"
    export(pruned(source, sparsity), torch.randn(2, *image(source)), path, encoding=encoding)
    ours, stock = load(path, threads=1), load(path, threads=1, kernels=False)
    name = stock.get_inputs()[0].name
    for batch in batches:
        x = np.random.default_rng(batch).standard_normal((batch, *image(source))).astype(np.float32)
        expected = stock.run(None, {name: x})[0]
        np.testing.assert_allclose(ours.run(None, {name: x})[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return sum(layer.claimed for layer in kernels.layers(ours))


SLOW = pytest.mark.slow


@pytest.mark.parametrize("encoding", ["gap", *(pytest.param(name, marks=SLOW) for name in ("dense", "coo", "packed"))])
def test_every_encoding_is_claimed_alike(encoding: str, tmp_path: Path) -> None:
    assert compare("builtin:resnet20", 0.9, encoding, tmp_path, batches=(1, 5)) == 18


@pytest.mark.parametrize(
    "source", [pytest.param("builtin:vgg16", marks=SLOW), "builtin:lenet300", "builtin:lenet5_caffe"]
)
def test_builtin_networks(source: str, tmp_path: Path) -> None:
    assert compare(source, 0.9, "auto", tmp_path, batches=(1, 3)) > 0


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_dense_networks_stay_with_onnxruntime(sparsity: float, tmp_path: Path) -> None:
    assert compare("builtin:smallcnn", sparsity, "dense", tmp_path, batches=(1,)) == 0


@SLOW
@pytest.mark.parametrize("source", ["torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:resnet50"])
@pytest.mark.parametrize("encoding", ["dense", "gap"])
def test_torchvision_networks(source: str, encoding: str, tmp_path: Path) -> None:
    assert compare(source, 0.9, encoding, tmp_path, batches=(1, 2)) >= 20
