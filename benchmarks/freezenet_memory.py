"""What training keeps in memory: a dense network, one pruned before training, a FreezeNet and a FreezeNet-WD.

    python benchmarks/freezenet_memory.py --model builtin:vgg16 --sparsity 0.9 --batch-size 8

Each is trained by a process of its own with momentum SGD. Bytes of parameters, gradients, optimizer state and buffers
are those of the tensors after the last step; buffers are masks, positions, frozen values and BatchNorm statistics.
Peaks are resident memory (VmHWM) above that before the model was built: while the mask is found, and while training.
In between the allocator gives back what it holds of freed memory (malloc_trim), which belongs to neither.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from compress.methods import AtInit, FreezeNet
from compress.methods.base import Method
from compress_then_export.models import build

KINDS = ("dense", "at_init", "freezenet", "freezenet-wd")
COLUMNS = ("parameters", "gradients", "optimizer", "buffers", "total", "peak_attach", "peak_training")


def method(kind: str, sparsity: float) -> Method | None:
    if kind == "dense":
        return None
    if kind == "at_init":
        return AtInit(sparsity=sparsity, score_batches=1)
    return FreezeNet(sparsity=sparsity, weight_decay=kind == "freezenet-wd")


def size(tensors: Iterable[Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def resident(entry: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))


def restart_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(source: str, kind: str, sparsity: float, batch_size: int, steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    data = [(torch.randn(batch_size, 3, 32, 32), torch.randint(0, 10, (batch_size,))) for _ in range(4)]
    before = resident("VmRSS")
    restart_peak()
    model, pruner = build(source, num_classes=10, in_channels=3), method(kind, sparsity)
    if pruner is not None:
        pruner.attach(model, data)
    attached = resident("VmHWM") - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    restart_peak()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    seconds = []
    for step in range(steps):
        inputs, labels = data[step % len(data)]
        started = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    found = {
        "parameters": size(model.parameters()),
        "gradients": size(parameter.grad for parameter in model.parameters()),
        "optimizer": size(value for state in optimizer.state.values() for value in state.values()),
        "buffers": size(model.buffers()),
    }
    return {
        **found,
        "total": sum(found.values()),
        "peak_attach": attached,
        "peak_training": resident("VmHWM") - before,
        "seconds": statistics.median(seconds),
    }


@click.command()
@click.option("--model", "source", default="builtin:vgg16", show_default=True)
@click.option("--sparsity", default=0.9, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--steps", default=6, show_default=True)
@click.option("--kind", type=click.Choice(KINDS), help="Measure this one alone, in this process, and print JSON.")
def main(source: str, sparsity: float, batch_size: int, steps: int, kind: str | None) -> None:
    """Measure and print."""
    if kind is not None:
        click.echo(json.dumps(measure(source, kind, sparsity, batch_size, steps)))
        return
    click.echo(f"{source}, sparsity {sparsity}, batch {batch_size}, momentum SGD; MB of 1e6 bytes")
    click.echo(f"{'':14}" + "".join(f"{name:>15}" for name in (*COLUMNS, "s/step")))
    for each in KINDS:
        command = [sys.executable, __file__, "--model", source, "--sparsity", str(sparsity), "--kind", each]
        command += ["--batch-size", str(batch_size), "--steps", str(steps)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        cells = [f"{row[name] / 1e6:15.1f}" for name in COLUMNS]
        click.echo(f"{each:14}" + "".join(cells) + f"{row['seconds']:15.3f}")


if __name__ == "__main__":
    main()
