"""Size, load time and latency of the encodings: python benchmarks/size_and_load.py --help

torchvision architectures with random weights and a uniform random mask on every convolution and linear weight;
BatchNorm folded, biases dense. All variants of one network are measured alternately in one run:

fresh   session creation from the file in a new process, as an application meets it
warm    session creation in a process that has created such sessions before
run     one inference of one 224 x 224 image, one thread
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnx_session import session
from torch import nn

from compress_then_export.vision import torchvision
from exporters.export import write_model
from exporters.graph import build_graph
from exporters.inspection import inspect

DECODING = {"CumSum", "ScatterElements", "Gather", "Less", "Where", "Cast", "ConstantOfShape"}
VARIANTS = [(encoding, values) for values in ("float32", "float16") for encoding in ("dense", "coo", "gap", "auto")]
FRESH = """
import sys, time, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
start = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.perf_counter() - start)
"""


@dataclass(kw_only=True)
class Variant:
    """One file and what was measured on it; times in milliseconds."""

    encoding: str
    values: str
    path: Path
    size_bytes: int
    bound_ratio: float
    difference: float = 0.0
    identical: bool = False
    decoding: int = 0
    fresh_ms: list[float] = field(default_factory=list)
    warm_ms: list[float] = field(default_factory=list)
    run_ms: list[float] = field(default_factory=list)


def pruned(name: str, sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models, name)()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter *= torch.rand(parameter.shape, generator=generator) >= sparsity
            else:
                parameter.add_(0.01)  # biases of zero would be left out of the file
    return model


def outputs(opened: onnxruntime.InferenceSession, image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(opened.run(None, {"input": image})[0])


def bound(path: Path, value_bits: int) -> float:
    """Return the least bytes for random positions and values of ``value_bits``; biases dense."""
    report = inspect(path)
    total = 0.0
    for layer in report.layers:
        count = math.prod(layer.shape)
        share = 1 - layer.sparsity
        entropy = 0.0
        if 0 < share < 1:
            entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        total += count * entropy + count * share * value_bits
    biases = report.parameters - sum(math.prod(layer.shape) for layer in report.layers)
    return (total + 32 * biases) / 8


def write_all(graph: ModelProto, folder: Path) -> list[Variant]:
    found: list[Variant] = []
    for encoding, values in VARIANTS:
        path = folder / f"{encoding}-{values}.onnx"
        report = write_model(graph, path, encoding=encoding, values=values)
        least = bound(found[0].path if found else path, 32 if values == "float32" else 16)
        ratio = report.dense_size_bytes / least
        found.append(
            Variant(encoding=encoding, values=values, path=path, size_bytes=report.size_bytes, bound_ratio=ratio)
        )
    return found


def measure(variants: list[Variant], folder: Path, rounds: int, runs: int) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    opened = []
    for variant in variants:
        opened.append(session(variant.path, folder / "optimized.onnx"))
        nodes = onnx.load(folder / "optimized.onnx").graph.node
        variant.decoding = sum(node.op_type in DECODING for node in nodes)
        result = outputs(opened[-1], image)
        reference = outputs(opened[0], image)
        variant.difference = float(np.abs(result - reference).max())
        variant.identical = bool(np.array_equal(result.view(np.uint32), reference.view(np.uint32)))
    for _ in range(runs):
        for variant, one in zip(variants, opened, strict=True):
            start = time.perf_counter()
            outputs(one, image)
            variant.run_ms.append(1e3 * (time.perf_counter() - start))
    del opened
    for number in range(rounds + 1):
        for variant in variants:
            start = time.perf_counter()
            session(variant.path)
            if number:  # the first round warms up
                variant.warm_ms.append(1e3 * (time.perf_counter() - start))
    for _ in range(rounds):
        for variant in variants:
            command = [sys.executable, "-c", FRESH, str(variant.path)]
            variant.fresh_ms.append(1e3 * float(subprocess.check_output(command)))


def spread(times: list[float]) -> str:
    quartiles = statistics.quantiles(times, n=4)
    return f"{statistics.median(times):.0f} ({quartiles[0]:.0f}-{quartiles[2]:.0f})"


def slower(variant: Variant, base: Variant, name: str) -> str:
    """Return the median of the ratios of neighbours in time."""
    pairs = zip(getattr(variant, name), getattr(base, name), strict=True)
    return f"{statistics.median(a / b for a, b in pairs):.2f}"


def rows(model: str, sparsity: float, variants: list[Variant]) -> list[str]:
    base = variants[0]
    lines = []
    for item in variants:
        difference = "identical" if item.identical else f"{item.difference:.1e}"
        cells = [
            f"{model} {sparsity:.0%}",
            item.encoding,
            item.values,
            f"{item.size_bytes:,}",
            f"{base.size_bytes / item.size_bytes:.2f}",
            f"{item.bound_ratio:.2f}",
            difference,
            str(item.decoding),
            spread(item.fresh_ms),
            slower(item, base, "fresh_ms"),
            spread(item.warm_ms),
            slower(item, base, "warm_ms"),
            spread(item.run_ms),
            slower(item, base, "run_ms"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


HEADER = [
    "| network | encoding | values | bytes | smaller | bound | outputs | decode nodes "
    "| fresh ms | x dense | warm ms | x dense | run ms | x dense |",
    "|---|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
]


@click.command()
@click.option("--model", "models", multiple=True, default=("resnet18", "resnet50"), show_default=True)
@click.option("--sparsity", "sparsities", multiple=True, type=float, default=(0.8, 0.9, 0.95), show_default=True)
@click.option("--rounds", default=9, show_default=True, help="Session creations of each file, fresh and warm.")
@click.option("--runs", default=9, show_default=True, help="Inferences of each file.")
def main(models: tuple[str, ...], sparsities: tuple[float, ...], rounds: int, runs: int) -> None:
    """Print a Markdown table: medians, quartiles in brackets, median ratio to the dense file."""
    torch.set_num_threads(1)
    click.echo("\n".join(HEADER))
    for model in models:
        for sparsity in sparsities:
            graph = build_graph(pruned(model, sparsity), torch.zeros(2, 3, 224, 224))
            with tempfile.TemporaryDirectory() as name:
                variants = write_all(graph, Path(name))
                measure(variants, Path(name), rounds, runs)
            click.echo("\n".join(rows(model, sparsity, variants)))


if __name__ == "__main__":
    main()
