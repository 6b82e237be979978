"""Every classification architecture of torchvision through pruning, export and onnxruntime, beside Torch-Pruning.

    python benchmarks/coverage.py --results coverage.jsonl
    python benchmarks/coverage.py --results coverage.jsonl --table     what is there, as Markdown

Three parts for each architecture, with random weights:

- weights: nine of ten single weights of every layer are zeroed (`OneShot`), the folded network is exported;
- channels: `GreedyImitation(macs=0.5, imitation="local", refit=False)`, also of residual streams, on four images:
  channels and heads are really removed, and the network is exported;
- torch_pruning: the same by Torch-Pruning's MagnitudePruner as its README shows it, every setting a default, only the
  layer that gives the classes ignored; the smallest of six pruning ratios that halves the MACs.

BatchNorm statistics are measured anew, then every file is run by stock onnxruntime and compared with the torch network
that it was exported from. Where they are more than 1e-3 apart, both are compared with that network in float64: the file
fails when it is more than twice as far from it as torch's own float32. MACs are counted by torch (convolutions and
matrix products with weights) on the networks themselves. Every part is a process of its own with limits of processor
time and memory; what is in the results file already is not run again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from macs import count_macs
from torch import Tensor, nn

import runtime_check
from compress import fold
from compress.methods import GreedyImitation, OneShot
from compress.recalibration import recalibrate
from compress_then_export.models import build
from compress_then_export.vision import torchvision
from exporters import export
from runtime_check.feeds import classify
from runtime_check.parity import compare_outputs

PARTS = ("weights", "channels", "torch_pruning")
SIZES = (64, 96, 128, 160, 192, 224, 256, 299)
RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LARGEST_DIFFERENCE = 1e-3


def make(name: str) -> tuple[nn.Module, int]:
    """The network with weights as if it were trained, and the smallest image side that it takes."""
    for size in SIZES:
        torch.manual_seed(0)
        try:
            model = _build(name, size).eval()
            with torch.no_grad():
                model(torch.randn(1, 3, size, size))
            _disturb(model)
            recalibrate(model, images(size))
            return model.eval(), size
        except (ValueError, RuntimeError):
            continue
    raise ValueError(f"{name} takes none of the sizes {SIZES}")


def images(size: int) -> list[tuple[Tensor, Tensor]]:
    """One batch of noise."""
    return [(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(4))]


def _build(name: str, size: int) -> nn.Module:
    args: dict[str, Any] = {}
    if name.startswith("vit_"):  # position embeddings are made for one size
        patch = int(name.rsplit("_", 1)[1])
        args = {"image_size": math.ceil(size / patch) * patch}
        if args["image_size"] != size:
            raise ValueError(f"{size} is no multiple of {patch}")
    if name in ("googlenet", "inception_v3"):
        args = {"init_weights": False}
    return build(f"torchvision:{name}", args=args)


@torch.no_grad()
def _disturb(model: nn.Module) -> None:
    """Fresh networks are too tidy: shifts of 0, heads of 0, layer scales of 1e-6 would hide mistakes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.weight.uniform_(0.8, 1.2)
            module.bias.normal_(0, 0.2)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):
            parameter.uniform_(0.2, 0.4)
        elif parameter.dim() == 2 and not parameter.any():
            parameter.normal_(0, 0.02)


def shipped(model: nn.Module, size: int, encoding: str = "dense") -> dict[str, Any]:
    """Export, run the file in onnxruntime, compare with torch."""
    recalibrate(model, images(size))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        golden = model.eval()(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report = export(model, x, path, encoding=encoding)
        outputs = classify(runtime_check.load(path, threads=1, kernels=False), x.numpy(), path.name)
    difference = compare_outputs(outputs, golden).max_rel_diff
    varies = float(np.abs(golden[0] - golden[1]).max() / np.abs(golden).max())
    row: dict[str, Any] = {"size_bytes": report.size_bytes, "difference": difference, "varies": varies}
    if difference is None or difference > LARGEST_DIFFERENCE:
        with torch.no_grad():
            exact = model.double()(x.double()).numpy()
        row["file_rounds"], row["torch_rounds"] = (compare_outputs(a, exact).max_rel_diff for a in (outputs, golden))
        if None in row.values() or row["file_rounds"] > 2 * row["torch_rounds"]:
            row["error"] = f"the file's outputs differ by {difference}"
    return row


def weights(name: str) -> dict[str, Any]:
    model, size = make(name)
    pruner = OneShot(sparsity=0.9, distribution="layer")
    pruner.attach(model)
    pruner.finish()
    return {"pixels": size, **shipped(fold(model), size, "auto")}


def channels(name: str) -> dict[str, Any]:
    model, size = make(name)
    data = images(size)
    before = count_macs(model, data[0][0])
    pruner = GreedyImitation(macs=0.5, imitation="local", refit=False, streams=True)
    pruner.attach(model, data)
    left = count_macs(model, data[0][0]) / before
    row = {"pixels": size, "macs_left": left, "groups": len(pruner.run.groups), **shipped(model, size)}
    if left > 0.505:
        row["error"] = f"{left:.3f} of the MACs are left"
    return row


def torch_pruning(name: str) -> dict[str, Any]:
    import torch_pruning as tp

    left = 1.0
    for ratio in RATIOS:
        model, size = make(name)
        x = torch.randn(1, 3, size, size)
        before = count_macs(model, x)
        last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        pruner = tp.pruner.MagnitudePruner(
            model, x, importance=tp.importance.MagnitudeImportance(), pruning_ratio=ratio, ignored_layers=[last]
        )
        pruner.step()
        left = count_macs(model, x) / before
        if left <= 0.505:
            return {"pixels": size, "macs_left": left, "ratio": ratio, **shipped(model, size)}
    return {"error": f"{left:.3f} of the MACs are left at the ratio {RATIOS[-1]}", "macs_left": left}


def limited(name: str, part: str, seconds: int, gigabytes: int) -> dict[str, Any]:
    """The row of one part, out of a process of its own that is stopped when it takes too long."""
    context = multiprocessing.get_context("fork")  # what is imported already need not be imported again
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(name, part, seconds, gigabytes, sender))
    child.start()
    sender.close()
    error = f"more than {6 * seconds} s"
    try:
        if receiver.poll(6 * seconds):
            row: dict[str, Any] = receiver.recv()
            return row
    except EOFError:
        child.join()
        stopped = child.exitcode == -signal.SIGXCPU
        error = f"more than {seconds} s of processor time" if stopped else f"killed ({child.exitcode}), out of memory?"
    finally:
        child.kill()
        child.join()
    return {"name": name, "part": part, "error": error}


def _work(name: str, part: str, seconds: int, gigabytes: int, sender: Connection) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    start, worked = time.perf_counter(), time.process_time()
    try:
        row = {"weights": weights, "channels": channels, "torch_pruning": torch_pruning}[part](name)
    except MemoryError:
        row = {"error": f"more than {gigabytes} GiB of memory"}
    except Exception as error:  # the row says what it was
        row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    row["seconds"] = round(time.perf_counter() - start, 1)
    row["worked"] = round(time.process_time() - worked, 1)
    sender.send({"name": name, "part": part, **row})


def by_size() -> list[str]:
    """All architectures, those with few parameters first."""
    models = torchvision.models
    names = models.list_models(module=models)
    return sorted(names, key=lambda name: models.get_model_weights(name).DEFAULT.meta["num_params"])


def table(rows: list[dict[str, Any]]) -> str:
    """One line an architecture, the last row of each part."""
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["part"]] = row
    lines = [
        "| architecture | pixels | weights: difference | channels: MACs left | difference "
        "| Torch-Pruning: MACs left | difference |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(by_name):
        parts = by_name[name]
        pixels = next((str(row["pixels"]) for row in parts.values() if "pixels" in row), "")
        cells = [name, pixels]
        for part in PARTS:
            row = parts.get(part)
            if row is None:
                cells += ["not run"] if part == "weights" else ["not run", ""]
            elif "error" in row:
                reason = row["error"].replace("|", "/")
                cells += [f"**no**: {reason}"] if part == "weights" else ["**no**", reason]
            else:
                left = [] if part == "weights" else [f"{row['macs_left']:.3f}"]
                cells += [*left, f"{row['difference']:.0e}"]
        lines.append("| " + " | ".join(cells) + " |")
    for part in PARTS:
        run = [parts[part] for parts in by_name.values() if part in parts]
        lines += ["", f"{part}: {sum('error' not in row for row in run)} of the {len(run)} that were run"]
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--results", type=click.Path(path_type=Path), default=Path("coverage.jsonl"), show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS)
@click.option("--seconds", default=240, show_default=True, help="Processor time of one architecture and part.")
@click.option("--gigabytes", default=12, show_default=True, help="Memory of one architecture and part.")
@click.option("--again", is_flag=True, help="Run what is in the file already.")
@click.option("--table", "only_table", is_flag=True)
@click.argument("names", nargs=-1)
def main(
    results: Path,
    parts: tuple[str, ...],
    seconds: int,
    gigabytes: int,
    again: bool,
    only_table: bool,
    names: tuple[str, ...],
) -> None:
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if not only_table:
        there = set() if again else {(row["name"], row["part"]) for row in rows}
        for name in names or by_size():
            for part in parts:
                if (name, part) in there:
                    continue
                rows.append(row := limited(name, part, seconds, gigabytes))
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
