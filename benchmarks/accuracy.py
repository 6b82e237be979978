"""Accuracy of dense, one-shot + fine-tuning, gradual and DPF at equal epochs.

    python benchmarks/accuracy.py --task digits --epochs 40 --seeds 3
    python benchmarks/accuracy.py --task patches --epochs 16 --seeds 1

Every method gets the same number of epochs in all: dense, gradual and DPF train that long from scratch; one-shot
trains three quarters dense and fine-tunes the last quarter with a fresh learning-rate schedule; "dpf+ft" runs DPF
for three quarters and the last quarter with the mask fixed. Results are appended to a JSON-lines file, so a run
that stopped goes on where it was.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from pathlib import Path

import click
import torch
from torch import nn

from compress import fold, sparsity_report
from compress.learning_rate import SCHEDULES, LearningRate, Schedule
from compress.methods import DPF, FineTune, Gradual, Method, OneShot
from compress.train import TrainSettings, accuracy, fit
from compress_then_export.data import Dataset, open_data
from compress_then_export.models import build, describe

TASKS = {
    "digits": ("builtin:lenet5_caffe", {"source": "digits"}, 0.05, 64),
    "patches": ("builtin:resnet20", {"source": "patches"}, 0.05, 64),
}
METHODS = ("dense", "one_shot", "gradual", "dpf", "dpf+ft")


class Task:
    """One seed of a task. The dense training that every one-shot run starts from is done once."""

    def __init__(
        self, name: str, epochs: int, seed: int, device: str, train_size: int | None, schedule: Schedule
    ) -> None:
        self.schedule = schedule
        self.source, data, self.lr, self.batch_size = TASKS[name]
        if train_size is not None:
            data = {**data, "train_size": train_size}
        info = describe(self.source)
        self.data: Dataset = open_data(data, input_shape=info.input_shape, fixed_size=info.fixed_size)
        self.epochs, self.seed, self.device = epochs, seed, device
        self.dense: nn.Module | None = None

    def model(self) -> nn.Module:
        torch.manual_seed(self.seed)
        shape = self.data.input_shape
        return build(self.source, num_classes=self.data.num_classes, in_channels=shape[0]).to(self.device)

    def train(self, model: nn.Module, epochs: int, method: Method | None = None, *, lr: float | None = None) -> None:
        """One stage; a method is attached, trained and folded."""
        loader = self.data.loader("train", batch_size=self.batch_size, seed=self.seed)
        schedule = LearningRate(schedule=self.schedule)
        settings = TrainSettings(
            epochs=epochs,
            batch_size=self.batch_size,
            lr=lr or self.lr,
            weight_decay=1e-4,
            seed=self.seed,
            learning_rate=schedule,
        )
        total = len(loader) * epochs
        pruner = None if method is None else method.planned(total, schedule.drops(total))
        if pruner is not None:
            pruner.attach(model, loader)
        fit(model, loader, settings, pruner=pruner)
        if pruner is not None:
            pruner.finish()
            fold(model)

    def run(self, method: str, sparsity: float) -> nn.Module:
        model, quarter = self.model(), max(1, self.epochs // 4)
        if method == "dense":
            self.train(model, self.epochs)
        elif method == "one_shot":
            if self.dense is None:
                self.train(model, self.epochs - quarter)
                self.dense = model
            model = copy.deepcopy(self.dense)
            self.train(model, quarter, OneShot(sparsity=sparsity), lr=self.lr / 2)
        elif method == "gradual":
            self.train(model, self.epochs, Gradual(sparsity=sparsity, period=16))
        elif method == "dpf":
            self.train(model, self.epochs, DPF(sparsity=sparsity))
        else:
            self.train(model, self.epochs - quarter, DPF(sparsity=sparsity))
            self.train(model, quarter, FineTune(), lr=self.lr / 2)
        return model


@click.command()
@click.option("--task", type=click.Choice(sorted(TASKS)), required=True)
@click.option("--epochs", default=40, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--sparsity", "sparsities", multiple=True, type=float, default=(0.8, 0.9, 0.95, 0.98), show_default=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--schedule", type=click.Choice(SCHEDULES), default="cosine", show_default=True)
@click.option("--train-size", type=int, help="Use a subset of the training images.")
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="JSON-lines file; default out/accuracy-TASK.jsonl.")
def main(
    task: str,
    epochs: int,
    seeds: int,
    sparsities: tuple[float, ...],
    methods: tuple[str, ...],
    schedule: Schedule,
    train_size: int | None,
    threads: int,
    results: Path | None,
) -> None:
    """Run what is missing and print the table."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = results or Path("out") / f"accuracy-{task}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {key(row) for row in rows}
    for seed in range(seeds):
        work = Task(task, epochs, seed, device, train_size, schedule)
        for sparsity in sparsities:
            for method in methods:
                row = {"task": task, "epochs": epochs, "train_size": train_size, "schedule": schedule}
                row |= {"seed": seed, "method": method}
                row["sparsity"] = 0.0 if method == "dense" else sparsity
                if key(row) in done:
                    continue
                started = time.perf_counter()
                model = work.run(method, sparsity)
                row["accuracy"] = accuracy(model, work.data.loader("test", batch_size=500))
                row["reached"] = sparsity_report(model).overall_sparsity
                row["seconds"] = round(time.perf_counter() - started, 1)
                rows.append(row)
                done.add(key(row))
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                click.echo(json.dumps(row), err=True)
    setting = {"task": task, "epochs": epochs, "train_size": train_size, "schedule": schedule}
    mine = [row for row in rows if setting.items() <= row.items()]
    click.echo(table(mine, sparsities, methods))


def key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("task", "epochs", "train_size", "schedule", "seed", "method", "sparsity"))


def table(rows: list[dict[str, object]], sparsities: tuple[float, ...], methods: tuple[str, ...]) -> str:
    """Mean accuracy in percent, with the standard deviation over seeds where there are several."""
    lines = ["| method | " + " | ".join(f"{s:.0%}" for s in sparsities) + " |", "|---" * (len(sparsities) + 1) + "|"]
    for method in methods:
        cells = []
        for sparsity in sparsities:
            wanted = 0.0 if method == "dense" else sparsity
            values = [
                100 * float(r["accuracy"])  # type: ignore[arg-type]
                for r in rows
                if r["method"] == method and r["sparsity"] == wanted
            ]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    seeds = {row["seed"] for row in rows}
    return "\n".join([*lines, f"\nmean ± standard deviation over {len(seeds)} seed(s), test accuracy in %"])


if __name__ == "__main__":
    main()
