"""How long greedy imitation takes: python benchmarks/greedy_speed.py --help

Local imitation of all hidden widths of torchvision's ResNet-34 and MobileNetV2, with 64 images of 224x224 in batches of
16, to half of every width and to half of the MACs; and one accelerated step of global imitation against a forward
and backward pass of the layers that it runs, with the gradients of activations alone and with those of weights too.
Weights and images are random: neither changes the work.
"""

from __future__ import annotations

import os
import time
from itertools import islice

import click
import torch
from torch import Tensor, nn

from compress.greedy.discrepancy import squared_error
from compress.greedy.global_steps import GlobalImitation
from compress.greedy.groups import find_groups
from compress.greedy.layerwise import Layerwise, Search
from compress.methods import GreedyImitation
from compress_then_export.models import build

Pairs = list[tuple[Tensor, Tensor]]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(f"torchvision:{name}").eval()


def images(count: int, batch: int) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(batch, 3, 224, 224, generator=generator), torch.randint(0, 1000, (batch,), generator=generator))
        for _ in range(count // batch)
    ]


def local(name: str, data: Pairs, **target: float) -> None:
    model = network(name)
    start, worked = time.perf_counter(), time.process_time()
    pruner = GreedyImitation(imitation="local", **target)
    pruner.attach(model, data)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    left = ", ".join(f"{key} {value:.3f}" for key, value in pruner.run.findings.items())
    click.echo(
        f"{name}, local imitation to {target}: {seconds:.1f} s, {worked:.1f} s of processor time, for "
        f"{len(pruner.run.groups)} groups ({left}); load {os.getloadavg()[0]:.1f}"
    )


def global_step(name: str, data: Pairs, place: int, steps: int) -> None:
    model = network(name)
    group = find_groups(model, data[0][0][:1]).groups[place]
    layerwise = Layerwise(model, data, Search(discrepancy="squared"))
    layerwise.advance(group)
    search = GlobalImitation(layerwise.replay, group, layerwise.full, squared_error, exact_size=0, seed=0)
    states = search.steps(0)
    next(states)
    start = time.perf_counter()
    for _ in islice(states, steps):
        pass
    step = (time.perf_counter() - start) / steps
    passes = {}
    for weights in (False, True):
        layerwise.replay.model.requires_grad_(weights)
        with torch.enable_grad():
            start = time.perf_counter()
            for _ in range(steps):
                if weights:
                    squared_error(layerwise.replay.run(0), layerwise.full[0] + 1).backward()
                else:
                    search.slopes(torch.full((group.units,), 1 / group.units).double().numpy(), 0)
            passes[weights] = (time.perf_counter() - start) / steps
    click.echo(
        f"{name}, {group.name}, {len(data[0][0])} images: {1000 * step:.0f} ms a step = {step / passes[False]:.2f} "
        f"forward-backward passes to the channels, {step / passes[True]:.2f} with the gradients of weights; "
        f"load {os.getloadavg()[0]:.1f}"
    )


@click.command()
@click.option("--threads", default=2, show_default=True)
@click.option("--steps", default=3, show_default=True, help="steps of global imitation that are timed")
def main(threads: int, steps: int) -> None:
    torch.set_num_threads(threads)
    data = images(64, 16)
    for name in ("resnet34", "mobilenet_v2"):
        local(name, data, width=0.5)
        local(name, data, macs=0.5)
        for place in (0, -1):
            global_step(name, data[:1], place, steps)


if __name__ == "__main__":
    main()
