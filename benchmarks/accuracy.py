"""Accuracy of dense, one-shot + fine-tuning, gradual and DPF at equal epochs.

    python benchmarks/accuracy.py --task digits --epochs 40 --seeds 3
    python benchmarks/accuracy.py --task patches --epochs 16 --seeds 1

Dense, gradual and DPF train the same number of epochs from scratch; one-shot trains three quarters of them dense and
fine-tunes the last quarter with a fresh learning-rate schedule. "gradual+ft" and "dpf+ft" train a fifth more with the
mask fixed, as 60 epochs follow 300 in Table 2 of 003. Results are appended to a JSON-lines file, so a run that stopped
goes on where it was.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from rows import Rows
from tasks import NETWORKS, Task
from torch import nn
from training import train

from compress import sparsity_report
from compress.learning_rate import SCHEDULES, LearningRate, Schedule
from compress.methods import DPF, FineTune, Gradual, Method, OneShot
from compress.methods.ramped import Ramped
from compress.train import TrainSettings, accuracy

METHODS = ("dense", "one_shot", "gradual", "gradual+ft", "dpf", "dpf+ft")
RAMPED: dict[str, type[Ramped]] = {"gradual": Gradual, "dpf": DPF}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every row of one table has in common, and every row of the file carries."""

    task: str
    epochs: int
    train_size: int | None
    schedule: Schedule
    lr: float
    batch_size: int
    weight_decay: float
    ramp: float
    period: int


class Trainings:
    """One seed of a setting. A training that others start from ("dpf" of "dpf+ft") is done once."""

    def __init__(self, setting: Setting, seed: int, device: str) -> None:
        self.setting, self.seed, self.device = setting, seed, device
        self.task = Task(setting.task, setting.train_size)
        self.trained: dict[str, nn.Module] = {}

    def train(self, model: nn.Module, epochs: int, method: Method | None = None, *, lr: float | None = None) -> None:
        """One stage; a method is attached, trained and folded."""
        setting = self.setting
        loader = self.task.data.loader("train", batch_size=setting.batch_size, seed=self.seed)
        settings = TrainSettings(
            epochs=epochs,
            batch_size=setting.batch_size,
            lr=lr or setting.lr,
            weight_decay=setting.weight_decay,
            seed=self.seed,
            learning_rate=LearningRate(schedule=setting.schedule),
        )
        if isinstance(method, Ramped):
            method = replace(method, ramp_steps=int(len(loader) * epochs * setting.ramp), period=setting.period)
        train(model, loader, settings, method)

    def run(self, method: str, sparsity: float) -> nn.Module:
        epochs, fine = self.setting.epochs, self.setting.lr / 2
        if method == "dense":
            return self.start("dense", epochs)
        if method == "one_shot":
            quarter = max(1, epochs // 4)
            model = self.start("dense for one-shot", epochs - quarter)
            self.train(model, quarter, OneShot(sparsity=sparsity), lr=fine)
            return model
        name, _, tuned = method.partition("+")
        model = self.start(f"{name} {sparsity}", epochs, RAMPED[name](sparsity=sparsity))
        if tuned:
            self.train(model, max(1, epochs // 5), FineTune(), lr=fine)
        return model

    def start(self, name: str, epochs: int, method: Method | None = None) -> nn.Module:
        """The network of that training, which is done on the first call."""
        if name not in self.trained:
            model = self.task.network(self.seed).to(self.device)
            self.train(model, epochs, method)
            self.trained[name] = model
        return copy.deepcopy(self.trained[name])


@click.command()
@click.option("--task", type=click.Choice(sorted(NETWORKS)), required=True)
@click.option("--epochs", default=40, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--sparsity", "sparsities", multiple=True, type=float, default=(0.8, 0.9, 0.95, 0.98), show_default=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--schedule", type=click.Choice(SCHEDULES), default="cosine", show_default=True)
@click.option("--train-size", type=int, help="Use a subset of the training images.")
@click.option("--lr", default=0.05, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--weight-decay", default=1e-4, show_default=True)
@click.option("--ramp", default=0.75, show_default=True, help="Share of a ramped stage until the last sparsity.")
@click.option("--period", default=16, show_default=True, help="Steps between two rankings of the mask.")
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="JSON-lines file; default out/accuracy-TASK.jsonl.")
def main(
    seeds: int,
    sparsities: tuple[float, ...],
    methods: tuple[str, ...],
    threads: int,
    results: Path | None,
    **common: Any,
) -> None:
    """Run what is missing and print the table."""
    setting = Setting(**common)
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = Rows(results or Path("out") / f"accuracy-{setting.task}.jsonl", asdict(setting))
    for seed in range(seeds):
        work = Trainings(setting, seed, device)
        for sparsity in sparsities:
            for method in methods:
                key = {"seed": seed, "method": method, "sparsity": 0.0 if method == "dense" else sparsity}
                if rows.has(key):
                    continue
                started = time.perf_counter()
                model = work.run(method, sparsity)
                found = {
                    "accuracy": accuracy(model, work.task.data.loader("test", batch_size=500)),
                    "reached": sparsity_report(model).overall_sparsity,
                    "seconds": round(time.perf_counter() - started, 1),
                }
                rows.add(asdict(setting) | key | found)
    click.echo(table(rows, sparsities, methods))


def table(rows: list[dict[str, Any]], sparsities: tuple[float, ...], methods: tuple[str, ...]) -> str:
    """Mean accuracy in percent, with the standard deviation over seeds where there are several."""
    lines = [
        "| method | " + " | ".join(f"{100 * s:g}%" for s in sparsities) + " |",
        "|---" * (len(sparsities) + 1) + "|",
    ]
    for method in methods:
        cells = []
        for sparsity in sparsities:
            wanted = 0.0 if method == "dense" else sparsity
            values = [100 * r["accuracy"] for r in rows if r["method"] == method and r["sparsity"] == wanted]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    seeds = {row["seed"] for row in rows}
    return "\n".join([*lines, f"\nmean ± standard deviation over {len(seeds)} seed(s), test accuracy in %"])


if __name__ == "__main__":
    main()
