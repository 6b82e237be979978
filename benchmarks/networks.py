"""Whole networks with and without the sparse kernels: python benchmarks/networks.py --network resnet50 --sparsity 0.9

torchvision architectures and VGG-16 for CIFAR, random weights, uniformly random masks of equal density in every
convolution and linear layer but the first convolution (and depthwise ones, whose few weights stay). Every timing is a
process of its own, engine after engine, round after round: idle thread pools of one engine would take the cores of the
other. Batch 1 unless --batch says otherwise. A row gives the median over rounds of each engine's median latency, and
the median, smallest and largest of the rounds' ratios; `--picture FILE` draws these as bars.

With several threads both engines are measured with one thread as well, in the same round, and the row says what share
of one thread's ratio is kept.

On a virtual machine two conditions tell which rounds count, looked at before and after every process; the row says of
how many. `--apart LOW HIGH`: a value handed from one core to the other and back takes so many nanoseconds
(`core_distance.py`), since virtual processors wander. `--alone TIMES`: a fixed loop takes every core at most so many
times its least time since the start (`core_speed.py`), since other tenants use the same cores.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from conditions import Conditions

from runtime_check.pictures.svg import box, linear, picture, text, whisker
from runtime_check.theme import STYLE

TRIES = 8  # for one round that counts
ENGINES = ("onnxruntime", "kernels", "openvino", "deepsparse")
NETWORKS = ("resnet50", "resnet18", "vgg16_cifar", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0")
SMALL = ("mobilenet_v3_small", "mnasnet0_5", "squeezenet1_1")  # only where they are asked for


def write(network: str, sparsity: float, path: Path, size: int | None = None) -> None:
    """Export the network with its masks applied, for images of its usual size or of `size` pixels a side."""
    import torch
    from torch import nn

    from compress_then_export.models import build
    from compress_then_export.vision import torchvision
    from exporters import export

    torch.manual_seed(0)
    cifar = network == "vgg16_cifar"
    model = build("builtin:vgg16") if cifar else getattr(torchvision.models, network)()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    masked = [m for m in layers[1:] if not (isinstance(m, nn.Conv2d) and m.groups > 1)]
    with torch.no_grad():
        for layer in masked:
            layer.weight *= torch.rand(layer.weight.shape) >= sparsity
    size = size or (32 if cifar else 224)
    export(model.eval(), torch.randn(2, 3, size, size), path, encoding="dense")


def measure(path: Path, engine: str, threads: int, batch: int, seconds: float) -> dict[str, Any]:
    """Latencies of one engine in this process: median in ms, and the layers that the kernels ran."""
    import numpy as np
    import onnxruntime as ort

    shape = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    x = np.random.default_rng(0).standard_normal([batch, *shape[1:]]).astype(np.float32)
    claimed = 0
    if engine in ("onnxruntime", "kernels"):
        from runtime_check import kernels, load

        session = load(path, threads=threads, kernels=engine == "kernels")
        claimed = sum(layer.claimed for layer in kernels.layers(session))
        name = session.get_inputs()[0].name

        def call() -> None:
            session.run(None, {name: x})

    elif engine == "openvino":
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({model.input(0): list(x.shape)})
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def call() -> None:
            request.infer([x])

    else:
        import deepsparse

        compiled = deepsparse.compile_model(str(path), batch_size=batch, num_cores=threads)

        def call() -> None:
            compiled.run([x])

    for _ in range(3):
        call()
    samples = []
    end = time.perf_counter() + seconds
    while len(samples) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - start))
    return {"ms": statistics.median(samples), "claimed": claimed}


def process(path: Path, engine: str, threads: int, batch: int, seconds: float) -> tuple[float, int]:
    """`measure` in a process of its own: the median in ms, and how many layers the kernels ran."""
    options = ["--threads", threads, "--batch", batch, "--seconds", seconds]
    command = [sys.executable, __file__, "--worker", path, engine, *options]
    output = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    result = json.loads(output.splitlines()[-1])
    return result["ms"], result["claimed"]


def measure_round(
    path: Path, engines: Sequence[str], threads: int, batch: int, seconds: float, conditions: Conditions
) -> tuple[dict[str, float], dict[str, float], int] | None:
    """Every engine in turn: ms with these threads, ms with one where there are more (dense and kernels), and the layers
    that the kernels ran; None where the conditions did not hold throughout."""
    taken, alone, claimed = {}, {}, 0
    held = conditions.hold()
    for engine in engines:
        taken[engine], layers = process(path, engine, threads, batch, seconds)
        claimed = max(claimed, layers)
        held = conditions.hold() and held
        if threads > 1 and engine in ENGINES[:2]:
            alone[engine], _ = process(path, engine, 1, batch, seconds)
            held = conditions.hold() and held
    return (taken, alone, claimed) if held else None


@dataclass(frozen=True)
class Row:
    """Dense time over sparse time of one network."""

    network: str
    sparsity: float
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def draw(rows: Sequence[Row]) -> str:
    """An SVG file: a bar from zero for each row, with the range of its rounds, one network below the other."""
    width, left, height = 760.0, 190.0, 24.0
    scale = linear(0, max(max(row.ratios) for row in rows), left, width - 60)
    parts = [box(scale(1), 0, 1, len(rows) * height, "before", tip="as fast as dense")]
    for index, row in enumerate(rows):
        y = index * height
        if index == 0 or rows[index - 1].network != row.network:
            parts.append(text(0, y + 16, row.network, "strong"))
        parts += [
            text(left - 10, y + 16, f"{row.sparsity:.0%}", "soft", "end"),
            box(left, y + 4, scale(row.median) - left, 15, "after", radius=2),
            whisker(scale(min(row.ratios)), scale(max(row.ratios)), y + 11.5),
            text(scale(max(row.ratios)) + 8, y + 16, f"{row.median:.2f}x", "soft"),
        ]
    title = "Dense time over sparse time, by share of zero weights"
    told = ", ".join(f"{row.network} at {row.sparsity:.0%}: {row.median:.2f}" for row in rows)
    drawing = picture(width, len(rows) * height + 4, title, told, parts)
    head, rest = drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).split(">", 1)
    return f"{head}><style>{STYLE}</style>{rest}\n"


@click.command(help=__doc__)
@click.option("--network", "networks", type=click.Choice(NETWORKS + SMALL), multiple=True, default=NETWORKS)
@click.option("--sparsity", type=click.FloatRange(0, 1), multiple=True, default=(0.8, 0.9, 0.95), show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--size", type=click.IntRange(1), help="Pixels of a side, where not the network's usual ones.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Measuring time in each process.")
@click.option("--engine", "engines", type=click.Choice(ENGINES[2:]), multiple=True, help="Others to measure beside.")
@click.option("--picture", "drawing", type=click.Path(dir_okay=False, path_type=Path), help="An SVG file to write.")
@click.option("--apart", type=(float, float), help="Nanoseconds between the cores, there and back, of a round.")
@click.option("--alone", type=click.FloatRange(1), help="Times the least time of a loop that cores take in a round.")
@click.option("--worker", nargs=2, hidden=True)
def main(
    networks: tuple[str, ...],
    sparsity: tuple[float, ...],
    threads: int,
    size: int | None,
    batch: int,
    rounds: int,
    seconds: float,
    engines: tuple[str, ...],
    drawing: Path | None,
    apart: tuple[float, float] | None,
    alone: float | None,
    worker: tuple[str, str] | None,
) -> None:
    if worker:
        print(json.dumps(measure(Path(worker[0]), worker[1], threads, batch, seconds)))
        return
    for engine in engines:
        if find_spec(engine) is None:
            raise click.UsageError(f"{engine} is not installed")
    chosen = (*ENGINES[:2], *engines)
    print(f"{threads} thread(s), batch {batch}, {rounds} rounds\n")
    print("| network | sparsity | claimed |" + "".join(f" {engine} ms |" for engine in chosen) + " speed-up |")
    print("|---|--:|--:|" + "--:|" * len(chosen) + "--:|")
    rows = []
    conditions = Conditions(apart, alone)
    for network in networks:
        for share in sparsity:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                write(network, share, path, size)
                found: dict[str, list[float]] = {engine: [] for engine in chosen}
                kept: list[float] = []
                claimed = tries = 0
                while len(found[chosen[0]]) < rounds and tries < (TRIES if conditions.any else 1) * rounds:
                    tries += 1
                    result = measure_round(path, chosen, threads, batch, seconds, conditions)
                    if result is None:
                        continue
                    taken, one, claimed = result
                    for engine in chosen:
                        found[engine].append(taken[engine])
                    if one:
                        kept.append(taken["onnxruntime"] / taken["kernels"] * one["kernels"] / one["onnxruntime"])
            if not found[chosen[0]]:
                print(f"| {network} | {share:.0%} | none of {tries} rounds met the conditions |", flush=True)
                continue
            ratios = [a / b for a, b in zip(found["onnxruntime"], found["kernels"], strict=True)]
            times = "".join(f" {statistics.median(found[engine]):.2f} |" for engine in chosen)
            rows.append(Row(network, share, tuple(ratios)))
            spread = f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]"
            if kept:
                spread += f", {statistics.median(kept):.0%} [{min(kept):.0%}, {max(kept):.0%}] of one thread's"
            spread += f" {len(ratios)} of {tries} rounds" if conditions.any else ""
            print(f"| {network} | {share:.0%} | {claimed} |{times} {spread} |", flush=True)
    if drawing:
        drawing.write_text(draw(rows))


if __name__ == "__main__":
    main()
