"""Sizes, load time and latency of seeded files: python benchmarks/seeded.py --help

Networks whose frozen weights come from one seed. LeNet-5-Caffe is a FreezeNet with a SNIP mask after an epoch on the
digits, and once more with trained weights drawn evenly over the network, which are the most expensive positions; VGG-16
has the latter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnx_session import session
from torch import nn
from torch.nn import functional

from compress import fold
from compress.frozen import FrozenValues, frozen_values
from compress.methods import FreezeNet
from compress_then_export.data import open_data
from compress_then_export.models.lenet5_caffe import LeNet5Caffe
from compress_then_export.models.vgg16 import VGG16
from exporters.export import write_model
from exporters.graph import build_graph
from exporters.tensors import field_bytes

SEED = 20211
THESIS_KB = {0.9: 170.7, 0.99: 19.1, 0.995: 10.7, 0.999: 3.9}
"""Table 3.2 of the thesis: LeNet-5-Caffe, trained values and biases as float32; kB = 1024 bytes."""
FRESH = r"""
import re, sys, time, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
start, work = time.perf_counter(), time.process_time()
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
seconds, work = time.perf_counter() - start, time.process_time() - work
peak = re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1)
print(seconds, work, int(peak) / 1024)
"""


def freeze(model: nn.Module, share: float, distribution: str) -> tuple[int, dict[str, FrozenValues]]:
    """Freeze exactly ``share`` of all weights; returns the number of trained ones and the seeds."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.dim() >= 2}
    frozen = frozen_values(SEED, weights, distribution)
    total = sum(parameter.numel() for parameter in weights.values())
    trained = torch.zeros(total, dtype=torch.bool)
    trained[torch.randperm(total, generator=generator)[: round((1 - share) * total)]] = True
    masks = torch.split(trained, [parameter.numel() for parameter in weights.values()])
    with torch.no_grad():
        for (name, parameter), mask in zip(weights.items(), masks, strict=True):
            values = torch.randn(parameter.shape, generator=generator) * frozen[name].scale
            parameter.copy_(torch.where(mask.view(parameter.shape), values, frozen[name].tensor()))
        for name, parameter in model.named_parameters():
            if name not in weights:
                parameter.add_(torch.rand(parameter.shape, generator=generator) / 10)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return int(torch.count_nonzero(trained)), frozen


def freezenet(model: nn.Module, share: float, distribution: str) -> tuple[int, dict[str, FrozenValues]]:
    """The same by the method itself, after one epoch on the digits."""
    data = open_data({"source": "digits"}, input_shape=(1, 28, 28))
    loader = data.loader("train", batch_size=100, seed=0)
    pruner = FreezeNet(sparsity=share, seed=SEED, initialisation=distribution)
    pruner.attach(model, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, labels in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        pruner.step(optimizer)
    pruner.finish()
    trained, frozen = int(pruner.run.findings["trained_weights"]), pruner.run.frozen
    fold(model)
    return trained, frozen


FREEZE = {"SNIP": freezenet, "even": freeze}


def write(
    model: nn.Module, graph: ModelProto, frozen: dict[str, FrozenValues] | None, path: Path, values: str = "float32"
) -> None:
    if frozen is None:
        write_model(graph, path, encoding="dense", values=values)
        return
    named = dict(model.named_parameters())
    parameters = {name: named[name].detach().numpy() for name in frozen}
    seeds = {name: item.to_json() for name, item in frozen.items()}
    write_model(graph, path, encoding="seeded", values=values, seeds=seeds, parameters=parameters)


def payload(tensor: TensorProto) -> int:
    return len(tensor.raw_data)


def parts(path: Path) -> dict[str, int]:
    """Bytes of the file by kind: all that is not the content of a value, a bias or a position is graph."""
    model = onnx.load(path)
    found = {"values": 0, "biases": 0, "positions": 0, "generator": 0}
    for tensor in model.graph.initializer:
        end = tensor.name.rpartition("/")[2]
        if tensor.name.startswith("/") and end in ("v", "v.h"):
            found["values"] += payload(tensor)
        elif tensor.name.startswith("/") and end in ("c", "x"):
            found["positions"] += payload(tensor)
        elif len(tensor.dims) == 1 and tensor.name.endswith("bias"):
            found["biases"] += payload(tensor)
    generated = [*model.graph.initializer, *(node for node in model.graph.node)]
    for part in generated:
        name = part.name if isinstance(part, TensorProto) else part.output[0]
        if len(name) <= 2 and "/" not in name:
            found["generator"] += field_bytes(part)
    found["graph"] = path.stat().st_size - sum(found.values())
    return found


def outputs(path: Path, samples: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.asarray(session(path).run(None, {"input": samples})[0]).view(np.uint32)


def sizes(folder: Path, distribution: str) -> None:
    """Print the table of LeNet-5-Caffe."""
    samples = np.random.default_rng(0).standard_normal((8, 1, 28, 28)).astype(np.float32)
    click.echo(
        "| mask | q | values | thesis kB | values + biases kB | positions kB | bytes each | all but graph kB "
        "| generator B | other graph B | file kB | outputs |\n|---|--:|---|" + "--:|" * 8 + "---|"
    )
    for mask, (share, thesis) in product(FREEZE, THESIS_KB.items()):
        model = LeNet5Caffe()
        trained, frozen = FREEZE[mask](model, share, distribution)
        model.eval()
        graph = build_graph(model, torch.zeros(2, 1, 28, 28))
        write(model, graph, None, folder / "dense.onnx")
        for values in ("float32", "float16"):
            path = folder / "seeded.onnx"
            write(model, graph, frozen, path, values)
            found = parts(path)
            stored = found["values"] + found["biases"]
            same = np.array_equal(outputs(path, samples), outputs(folder / "dense.onnx", samples))
            cells = [
                mask,
                f"{share:g}",
                values,
                f"{thesis}",
                f"{stored / 1024:.2f}",
                f"{found['positions'] / 1024:.2f}",
                f"{found['positions'] / trained:.2f}",
                f"{(stored + found['positions']) / 1024:.2f}",
                f"{found['generator']:,}",
                f"{found['graph']:,}",
                f"{path.stat().st_size / 1024:.2f}",
                "identical" if same else "trained values rounded",
            ]
            click.echo("| " + " | ".join(cells) + " |")


def fresh(path: Path) -> list[float]:
    return [float(word) for word in subprocess.check_output([sys.executable, "-c", FRESH, str(path)]).split()]


def spread(numbers: list[float], digits: int) -> str:
    quartiles = statistics.quantiles(numbers, n=4)
    return f"{statistics.median(numbers):.{digits}f} ({quartiles[0]:.{digits}f}-{quartiles[2]:.{digits}f})"


def times(folder: Path, distribution: str, share: float, rounds: int, runs: int) -> None:
    """Print load time and latency of VGG-16, seeded and dense taking turns."""
    model = VGG16(num_classes=10).eval()
    _, frozen = freeze(model, share, distribution)
    graph = build_graph(model, torch.zeros(2, 3, 32, 32))
    paths = {"dense": folder / "vgg-dense.onnx", "seeded": folder / "vgg-seeded.onnx"}
    write(model, graph, None, paths["dense"])
    write(model, graph, frozen, paths["seeded"])
    samples = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    results = [outputs(path, samples) for path in paths.values()]
    executed = []
    for name, path in paths.items():
        session(path, folder / f"{name}-optimized.onnx")
        executed.append([node.op_type for node in onnx.load(folder / f"{name}-optimized.onnx").graph.node])
    loads: dict[str, list[list[float]]] = {name: [fresh(path)] for name, path in paths.items()}
    for _ in range(rounds):
        for name, path in paths.items():
            loads[name].append(fresh(path))
    opened = {name: session(path) for name, path in paths.items()}
    latency: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(runs + 3):
        for name, one in opened.items():
            start = time.perf_counter()
            one.run(None, {"input": samples})
            if number >= 3:  # the first runs warm up
                latency[name].append(1e3 * (time.perf_counter() - start))
    ratio = statistics.median(a / b for a, b in zip(latency["seeded"], latency["dense"], strict=True))
    click.echo(f"\nVGG-16, q = {share:g}, {distribution}; outputs identical: {np.array_equal(*results)}; ", nl=False)
    click.echo(f"same executed operators: {executed[0] == executed[1]}; latency seeded / dense {ratio:.3f}\n")
    click.echo("| file | bytes | load s | of it CPU s | peak MiB | run ms |\n|---|" + "--:|" * 5)
    column: Callable[[str, int], list[float]] = lambda name, place: [row[place] for row in loads[name][1:]]  # noqa: E731
    for name, path in paths.items():
        cells = [name, f"{path.stat().st_size:,}", spread(column(name, 0), 2), spread(column(name, 1), 2)]
        cells += [f"{max(column(name, 2)):.0f}", spread(latency[name], 1)]
        click.echo("| " + " | ".join(cells) + " |")


@click.command()
@click.option("--distribution", default="xavier_normal", show_default=True)
@click.option("--share", default=0.99, show_default=True, help="Fraction of VGG-16 that is frozen.")
@click.option("--rounds", default=7, show_default=True, help="Session creations of each file, in fresh processes.")
@click.option("--runs", default=51, show_default=True, help="Inferences of each file.")
def main(distribution: str, share: float, rounds: int, runs: int) -> None:
    """Print Markdown tables: medians, quartiles in brackets."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        sizes(Path(name), distribution)
        times(Path(name), distribution, share, rounds, runs)


if __name__ == "__main__":
    main()
