"""Do the recipes reach table 2's MACs and parameters (Ye et al. 2020)? python benchmarks/greedy_table2.py

Every recipe in docs/recipes/table2-*.yaml runs its stage on torchvision's network with random weights and random
images, local imitation on one small batch: bounds are met by widths, whatever was learnt. Counts are those of the
network that is left: MACs of convolution and linear layers for one 224x224 image, and all parameters.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from macs import count_macs

from compress.methods import GreedyImitation
from compress_then_export.models import build
from compress_then_export.recipe import read_recipe

PAPER = {  # MACs in millions and parameters in millions that table 2 prints
    "table2-resnet34-2.20G": (2200, 14.9),
    "table2-resnet34-1.90G": (1900, 13.5),
    "table2-mobilenet_v2-245M": (245, 3.2),
    "table2-mobilenet_v2-218M": (218, 2.9),
    "table2-mobilenet_v2-170M": (170, 2.3),
    "table2-mobilenet_v3_small-48M": (48, 2.0),
}


def counts(model: torch.nn.Module) -> tuple[float, float]:
    """Millions of MACs and of parameters."""
    return count_macs(model, torch.zeros(1, 3, 224, 224)) / 1e6, sum(p.numel() for p in model.parameters()) / 1e6


@click.command()
@click.option("--images", default=4, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=Path("docs/recipes"))
def main(images: int, folder: Path) -> None:
    """Print a row for every recipe."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(images, 3, 224, 224, generator=generator), torch.zeros(images, dtype=torch.int64))]
    click.echo("| recipe | MACs, whole | left | table 2 | parameters, whole | left | table 2 | seconds |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|---:|")
    for path in sorted(folder.glob("table2-*.yaml")):
        recipe = read_recipe(path)
        torch.manual_seed(0)
        model = build(recipe.model.source).eval()
        whole, started = counts(model), time.perf_counter()
        settings = {**recipe.compress[0].settings, "imitation": "local"}
        GreedyImitation(**settings).attach(model, data)
        seconds = time.perf_counter() - started
        left, paper = counts(model), PAPER[path.stem]
        click.echo(
            f"| {path.stem} | {whole[0]:.0f} M | {left[0]:.1f} M | {paper[0]} M "
            f"| {whole[1]:.2f} M | {left[1]:.2f} M | {paper[1]} M | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
