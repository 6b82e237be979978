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
import numpy as np
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
    pruner = GreedyImitation(imitation="local", refit=False, **target)
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
    seconds, worked = time.perf_counter(), time.process_time()
    for _ in islice(states, steps):
        pass
    seconds, step = (time.perf_counter() - seconds) / steps, (time.process_time() - worked) / steps
    passes = {}
    for weights in (False, True):
        layerwise.replay.model.requires_grad_(weights)
        worked = time.process_time()
        for _ in range(steps):
            if weights:
                squared_error(layerwise.replay.run(0), layerwise.full[0] + 1).backward()
            else:
                search.slopes(np.full(group.units, 1 / group.units), 0)
        passes[weights] = (time.process_time() - worked) / steps
    click.echo(
        f"{name}, {group.name}, {len(data[0][0])} images: {seconds:.2f} s a step, in processor time "
        f"{step / passes[False]:.2f} forward-backward passes to the channels or {step / passes[True]:.2f} with the "
        f"gradients of weights; load {os.getloadavg()[0]:.1f}"
    )


@click.command()
@click.option("--network", "names", multiple=True, default=("resnet34", "mobilenet_v2"), show_default=True)
@click.option("--part", type=click.Choice(["all", "width", "macs", "step"]), default="all", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--steps", default=3, show_default=True, help="steps of global imitation that are timed")
def main(names: tuple[str, ...], part: str, threads: int, steps: int) -> None:
    torch.set_num_threads(threads)
    data = images(64, 16)
    for name in names:
        for target in ("width", "macs"):
            if part in ("all", target):
                local(name, data, **{target: 0.5})
        for place in (0, -1) if part in ("all", "step") else ():
            global_step(name, data[:1], place, steps)


if __name__ == "__main__":
    main()
