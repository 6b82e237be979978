"""What DPF costs a training step over plain SGD, measured step by step in alternation.

    python benchmarks/dpf_overhead.py --model torchvision:resnet18 --batch-size 32 --rounds 6

A round is one period of the mask: 16 plain steps and 16 DPF steps on the same batches, in pairs whose order is swapped
every time, so that both see the same machine. Printed: median step time of both, and the ratio of rounds with its
spread.
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from torch import nn

from compress.methods import DPF
from compress_then_export.models import build, describe

PERIOD = 16


class Trainer:
    def __init__(self, source: str, pruned: bool) -> None:
        torch.manual_seed(0)
        self.model = build(source).train()
        self.pruner = DPF(sparsity=0.9, ramp_steps=10_000, period=PERIOD) if pruned else None
        if self.pruner:
            self.pruner.attach(self.model)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
        )

    def step(self, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Seconds for one optimizer step, the method's part included."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(inputs), labels).backward()
        self.optimizer.step()
        if self.pruner:
            self.pruner.step()
        return time.perf_counter() - started


@click.command()
@click.option("--model", "source", default="torchvision:resnet18", show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--size", type=int, help="Image side in pixels; default: the model's own.")
@click.option("--rounds", default=6, show_default=True)
def main(source: str, batch_size: int, size: int | None, rounds: int) -> None:
    """Measure and print."""
    channels, height, width = describe(source).input_shape or (3, 224, 224)
    shape = (channels, size or height, size or width)
    batches = [(torch.randn(batch_size, *shape), torch.randint(0, 10, (batch_size,))) for _ in range(PERIOD)]
    plain, pruned = Trainer(source, pruned=False), Trainer(source, pruned=True)
    for trainer in (plain, pruned):
        trainer.step(*batches[0])
    times: list[tuple[float, float]] = []
    for number in range(rounds):
        seconds = {plain: 0.0, pruned: 0.0}
        for turn, batch in enumerate(batches):
            for trainer in (plain, pruned) if turn % 2 else (pruned, plain):
                seconds[trainer] += trainer.step(*batch)
        a, b = seconds[plain], seconds[pruned]
        times.append((a, b))
        click.echo(f"round {number + 1}: sgd {a:.2f} s, dpf {b:.2f} s, {b / a - 1:+.2%}", err=True)
    ratios = [b / a - 1 for a, b in times]
    sgd, dpf = (statistics.median(pair[side] for pair in times) / PERIOD for side in (0, 1))
    click.echo(
        f"{source}, batch {batch_size}, {shape}, {torch.get_num_threads()} threads: sgd {sgd:.4f} s/step, "
        f"dpf {dpf:.4f} s/step, overhead median {statistics.median(ratios):+.2%} "
        f"(from {min(ratios):+.2%} to {max(ratios):+.2%} in {rounds} rounds)"
    )


if __name__ == "__main__":
    main()
