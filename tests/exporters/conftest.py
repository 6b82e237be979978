"""Small models, and the runtimes that read what we write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from exporters.graph import build_graph

Run = Callable[[Path, NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def session(path: Path, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture
def run() -> Run:
    def _run(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        opened = session(path)
        result = opened.run(None, {opened.get_inputs()[0].name: inputs})[0]
        assert isinstance(result, np.ndarray)
        return result

    return _run


@pytest.fixture
def folded_nodes(tmp_path: Path) -> Callable[[Path], list[str]]:
    """Operator types of the graph that onnxruntime executes."""
    import onnx

    def _nodes(path: Path) -> list[str]:
        optimized = tmp_path / "optimized.onnx"
        session(path, optimized)
        return [node.op_type for node in onnx.load(optimized).graph.node]

    return _nodes


def prune_(model: nn.Module, sparsity: float, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter *= torch.rand(parameter.shape, generator=generator) >= sparsity
    return model


def shake_norms_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give BatchNorm layers statistics and scales that matter."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.1)
    return model


class SmallNet(nn.Module):
    """Convolutions with BatchNorm after and before, grouped, transposed, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.before = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4)
        self.norm2 = nn.BatchNorm2d(32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.norm3 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.before(x))
        x = torch.relu(self.norm2(self.grouped(x)))
        x = torch.relu(self.norm3(self.up(x)))
        return torch.as_tensor(self.head(x.mean((2, 3))))


def small_network(sparsity: float = 0.0) -> SmallNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallNet()
    prune_(shake_norms_(model), sparsity)
    return model.eval()


@pytest.fixture
def small_net() -> SmallNet:
    return small_network()


@pytest.fixture(scope="session")
def sparse_net() -> SmallNet:
    """Nine tenths zeros; shared by all tests, which leave it alone."""
    return small_network(0.9)


@pytest.fixture(scope="session")
def sparse_graph(sparse_net: SmallNet) -> ModelProto:
    """The dense ONNX form of `sparse_net`, traced once."""
    return build_graph(sparse_net, torch.zeros(2, 3, 12, 12))


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
