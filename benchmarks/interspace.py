"""What two-step execution (002, Algorithm 5.2) costs beside the folded spatial model, in onnxruntime.

    python benchmarks/interspace.py --seconds 10
    python benchmarks/interspace.py --kernels --network vgg16 --sparsity 0.9 --sparsity 0.95 --sparsity 0.99

Networks with random weights, interspace coefficients of fine sharing, the same sparsity in every layer. Both files of
a network are measured in turns by ``runtime_check.bench``, one thread, batch 1.

(5.15)      multiply-adds of two steps over those of spatial pruning at the same sparsity, if zeros cost nothing;
            in brackets counted in both files
dense       the same if zeros cost as much as other weights, counted: what onnxruntime computes
measured    time of two steps over time of the spatial file, 95 % interval
bytes       the file in its smallest exact encoding

``--kernels`` instead compares with the dense network: its time over that of spatial pruning and of two steps, both with
the sparse kernels, and of two steps without them. (Figure 5.8 of 002 has up to 5.2 for VGG-16, with scipy's CSR.)
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import nn

from compress import fold
from compress.interspace_conv import to_two_step
from compress.methods import OneShot
from compress_then_export.models import build
from exporters import export
from exporters.inspection import inspect
from runtime_check import bench, compare, load
from runtime_check.kernels import layers as found_layers

Network = tuple[Callable[[], nn.Module], tuple[int, ...], int | None]


def vgg_block(channels: int) -> nn.Module:
    """Three convolutions of VGG-16 with as many channels in as out."""
    layers = [
        (nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()) for _ in range(3)
    ]
    return nn.Sequential(*[layer for triple in layers for layer in triple])


# how to build it, its input, output channels where all its convolutions have the same number
NETWORKS: dict[str, Network] = {
    "resnet20": (lambda: build("builtin:resnet20"), (1, 3, 32, 32), None),
    "vgg16": (lambda: build("builtin:vgg16"), (1, 3, 32, 32), None),
    "block-64": (lambda: vgg_block(64), (1, 64, 32, 32), 64),
    "block-256": (lambda: vgg_block(256), (1, 256, 8, 8), 256),
    "block-512": (lambda: vgg_block(512), (1, 512, 4, 4), 512),
}


def files(network: Network, sparsity: float, folder: Path) -> dict[str, Path]:
    """ONNX files: spatially pruned, interspace folded, interspace in two steps."""
    make, shape, _ = network
    torch.manual_seed(0)
    model = make()
    example = torch.randn(shape)
    layerwise = {"sparsity": sparsity, "distribution": "layer"}
    dense, pruned, interspace = copy.deepcopy(model), copy.deepcopy(model), model
    OneShot(**layerwise).attach(pruned)
    OneShot(**layerwise, interspace="fine", basis="onb").attach(interspace)
    plain = {
        "dense": dense,
        "pruned": fold(pruned),
        "spatial": fold(copy.deepcopy(interspace)),
        "steps": to_two_step(interspace),
    }
    paths = {name: folder / f"{name}.onnx" for name in plain}
    for name, module in plain.items():
        export(module.eval(), example, paths[name])
    return paths


def row(name: str, sparsity: float, seconds: float) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = files(NETWORKS[name], sparsity, Path(folder))
        counted = {key: inspect(path) for key, path in paths.items()}
        document = bench([paths["spatial"], paths["steps"]], seconds=seconds, kernels=False)
    for warning in document["warnings"]:
        click.echo(f"{name} {sparsity}: {warning}", err=True)
    spatial, steps = document["models"]
    low, high = steps["speedup"]["ci95"]
    channels = NETWORKS[name][2]
    skipped = (counted["steps"].nonzero_macs or 0) / (counted["pruned"].nonzero_macs or 1)
    dense = (counted["steps"].macs or 0) / (counted["spatial"].macs or 1)
    formula = f"{1 + 9 / (channels * (1 - sparsity)):.2f} ({skipped:.2f})" if channels else f"({skipped:.2f})"
    cells = [
        name,
        f"{sparsity:.0%}",
        formula,
        f"{dense:.2f}",
        f"{1 / steps['speedup']['median']:.2f} ({1 / high:.2f}-{1 / low:.2f})",
        f"{spatial['latency_ms']['median']:.2f}",
        f"{steps['latency_ms']['median']:.2f}",
        f"{spatial['size_bytes']:,}",
        f"{steps['size_bytes']:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def kernel_row(name: str, sparsity: float, seconds: float) -> str:
    """One line of the table with the kernels."""
    cells = [name, f"{sparsity:.0%}"]
    with tempfile.TemporaryDirectory() as folder:
        paths = files(NETWORKS[name], sparsity, Path(folder))
        dense = load(paths["dense"], threads=1, kernels=False, spinning=False)
        for key, kernels in (("pruned", True), ("steps", True), ("steps", False)):
            session = load(paths[key], threads=1, kernels=kernels, spinning=False)
            found = compare(dense, session, seconds=seconds)
            low, high = found.speedup.ci95
            if key == "pruned":
                cells.append(f"{found.baseline.to_json()['median']:.2f}")
            if kernels:
                layers = found_layers(session)
                cells.append(f"{sum(layer.claimed for layer in layers)} of {len(layers)}")
            cells.append(f"{found.compressed.to_json()['median']:.2f}")
            cells.append(f"{found.speedup.median:.2f} ({low:.2f}-{high:.2f})")
    return "| " + " | ".join(cells) + " |"


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), default=tuple(NETWORKS))
@click.option("--sparsity", "sparsities", multiple=True, type=float, default=(0.9, 0.99), show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Measuring time of each row.")
@click.option("--kernels", "with_kernels", is_flag=True, help="Compare with the dense network, with sparse kernels.")
def main(names: tuple[str, ...], sparsities: tuple[float, ...], seconds: float, with_kernels: bool) -> None:
    """Print a Markdown table."""
    torch.set_num_threads(1)
    columns = ("(5.15)", "dense", "measured", "spatial ms", "two-step ms", "spatial bytes", "two-step bytes")
    if with_kernels:
        parts = ("spatial claimed", "ms", "ratio", "two-step claimed", "ms", "ratio", "stock ms", "ratio")
        columns = ("dense ms", *parts)
    click.echo(f"| network | sparsity | {' | '.join(columns)} |")
    click.echo(f"|---|--:|{'--:|' * len(columns)}")
    for name in names:
        for sparsity in sparsities:
            click.echo((kernel_row if with_kernels else row)(name, sparsity, seconds))


if __name__ == "__main__":
    main()
