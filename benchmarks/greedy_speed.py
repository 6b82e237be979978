"""How long greedy imitation takes: python benchmarks/greedy_speed.py --help

Local imitation of all hidden widths of torchvision's ResNet-34 and MobileNetV2, with 64 images of 224x224 in batches of
16, to half of every width and to half of the MACs; and one accelerated step of global imitation against a forward
and backward pass of the layers that it runs, with the gradients of activations alone and with those of weights too.
Weights and images are random: neither changes the work.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

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
LEAST_SECONDS = 4.0  # of short steps there are more rounds


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
    model, shares = layerwise.replay.model, np.full(group.units, 1 / group.units)

    def work(task: Callable[[], object], weights: bool) -> float:
        model.requires_grad_(weights)
        start = time.process_time()
        task()
        return time.process_time() - start

    def train() -> None:
        squared_error(layerwise.replay.run(0), layerwise.full[0] + 1).backward()

    rounds: list[tuple[float, float, float]] = []
    while len(rounds) <= steps or sum(map(sum, rounds)) < LEAST_SECONDS:
        step = work(lambda: next(states), False)
        rounds.append((step, work(lambda: search.slopes(shares, 0), False), work(train, True)))
    rounds = rounds[1:]  # the first one warms up
    without, trained = ([r[0] / r[i] for r in rounds] for i in (1, 2))
    click.echo(
        f"{name}, {group.name}, {len(data[0][0])} images: {statistics.median(r[0] for r in rounds):.3f} s of processor "
        f"time a step, {_spread(trained)} forward-backward passes of the layers behind the cut or {_spread(without)} "
        f"without the gradients of weights; {len(rounds)} rounds, load {os.getloadavg()[0]:.1f}"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


@click.command()
@click.option("--network", "names", multiple=True, default=("resnet34", "mobilenet_v2"), show_default=True)
@click.option("--part", type=click.Choice(["all", "width", "macs", "step"]), default="all", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--steps", default=3, show_default=True, help="Rounds of a step of global imitation and of the passes, at least."
)
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
