"""Does latency follow the MACs at 224x224? python benchmarks/greedy_latency.py --help

A recipe with random weights and random images goes through the command's own pipeline: greedy imitation to a target,
export, check. Printed is what the bundle's report says: MACs, and latency of dense.onnx and model.onnx on one thread,
measured in turns. Latency does not depend on the weights; accuracy is not what this is about.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import click
import torch

from compress_then_export.pipeline import run
from compress_then_export.recipe import parse_recipe


def random_images(*, images: int = 32) -> tuple[torch.utils.data.TensorDataset, torch.utils.data.TensorDataset]:
    """(train, test) of normal noise at 224x224 with random labels of 1000."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for count in (images, 16):
        x = torch.randn(count, 3, 224, 224, generator=generator)
        made.append(torch.utils.data.TensorDataset(x, torch.randint(0, 1000, (count,), generator=generator)))
    return made[0], made[1]


@click.command()
@click.option("--network", "names", multiple=True, default=("resnet34", "mobilenet_v2"), show_default=True)
@click.option("--target", type=click.Choice(["macs", "latency"]), default="macs", show_default=True)
@click.option("--value", default=0.5, show_default=True)
@click.option("--round-to", default="auto", show_default=True, help="a number, or auto: chosen by measurement")
@click.option("--streams/--no-streams", default=False, show_default=True)
@click.option("--images", default=16, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="of measuring")
@click.option("--threads", default=2, show_default=True, help="of torch, while channels are searched")
@click.option("--out", type=click.Path(path_type=Path), help="keep the bundles there")
def main(
    names: tuple[str, ...],
    target: str,
    value: float,
    round_to: str,
    streams: bool,
    images: int,
    seconds: float,
    threads: int,
    out: Path | None,
) -> None:
    """Print a row for every network."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(threads)
    sys.path.insert(0, str(Path(__file__).parent))  # where the recipe's factory is found
    click.echo("| network | MACs | latency, dense | latency, thinned | times faster | stages |")
    click.echo("|---|---:|---:|---:|---:|---|")
    for name in names:
        stage = {
            "method": "greedy_imitation",
            target: value,
            "imitation": "local",
            "refit": False,  # weights do not change latency
            "calibration_batches": 1,
            "round_to": int(round_to) if round_to.isdigit() else round_to,
            "streams": streams,
            "recalibrate": False,
        }
        recipe = parse_recipe(
            {
                "model": {"source": f"torchvision:{name}"},
                "data": {
                    "source": "python:greedy_latency:random_images",
                    "args": {"images": images},
                    "num_classes": 1000,
                },
                "train": {"batch_size": images},
                "compress": [stage],
                "check": {"max_drop": None, "seconds": seconds},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            document = run(recipe, (out or Path(folder)) / name)
        baseline, compressed = document["baseline"], document["compressed"]
        speedup = document["speedup"]
        spent = ", ".join(f"{stage['name']} {stage['seconds']:.0f} s" for stage in document["stages"])
        click.echo(
            f"| {name} | {compressed['macs'] / baseline['macs']:.3f} | {baseline['latency_ms']['median']:.1f} ms "
            f"| {compressed['latency_ms']['median']:.1f} ms | {speedup['median']:.2f} "
            f"({speedup['ci95'][0]:.2f} to {speedup['ci95'][1]:.2f}) | {spent} |"
        )


if __name__ == "__main__":
    main()
