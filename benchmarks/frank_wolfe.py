"""One training, any sparsity: accuracy of SGD's and Frank-Wolfe's networks after one-shot cuts without retraining.

    python benchmarks/frank_wolfe.py --task digits --epochs 40 --seeds 3
    python benchmarks/frank_wolfe.py --task patches --epochs 20 --train-size 4000 --seeds 1
    python benchmarks/frank_wolfe.py --task digits --epochs 40 --seeds 1 --ablation

The shape of Figures 1b, 2 and 4 of 001: each network is trained once, then copies of it are cut to every sparsity by
one threshold over all convolutions and linear layers. Nothing is trained or measured anew after a cut, as in the paper;
``--recalibrate`` measures statistics of BatchNorm anew, which needs no labels and no gradient. All trainings take the
same number of epochs from the same initial weights, and divide the learning rate by 10 at 1/3 and 2/3. ``--ablation``
varies τ and K (Figure 6); tensors that start outside a small polytope are scaled into it. Results are appended to a
JSON-lines file, so a run that stopped goes on where it was.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rows import Rows
from tasks import NETWORKS, Task
from torch import nn
from training import train

from compress.learning_rate import LearningRate
from compress.methods import FrankWolfe, Method
from compress.natural_sparsity import CUTS, natural_sparsity, one_shot_curve
from compress.recalibration import recalibrate
from compress.train import TrainSettings, accuracy

METHODS = ("sgd", "sfw", "sfw+init")
RADII, K_FRACTIONS = (5.0, 10.0, 15.0), (0.01, 0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every row of one table has in common, and every row of the file carries."""

    task: str
    epochs: int
    train_size: int | None
    lr: float
    weight_decay: float
    sfw_lr: float
    batch_size: int
    init_iterations: int
    norm: str
    recalibrate: bool


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network to train."""

    seed: int
    method: str
    radius: float
    k_fraction: float


class Trainings:
    """The networks of a setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.task = Task(setting.task, setting.train_size)

    def trained(self, training: Training) -> nn.Module:
        model = self.task.network(training.seed).to("cuda" if torch.cuda.is_available() else "cpu")
        setting = self.setting
        settings = TrainSettings(
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            seed=training.seed,
            learning_rate=LearningRate(milestones=(1 / 3, 2 / 3)),
        )
        loader = self.task.data.loader("train", batch_size=setting.batch_size, seed=training.seed)
        train(model, loader, settings, self.method(training))
        return model

    def method(self, training: Training) -> Method | None:
        if training.method == "sgd":
            return None
        return FrankWolfe(
            radius=training.radius,
            k_fraction=training.k_fraction,
            norm=self.setting.norm,  # type: ignore[arg-type]
            lr=self.setting.sfw_lr,
            init_iterations=self.setting.init_iterations if training.method == "sfw+init" else 0,
            outside="scale",
        )

    def accuracy(self, model: nn.Module) -> float:
        if self.setting.recalibrate:
            model = copy.deepcopy(model)
            loader = self.task.data.loader("train", batch_size=self.setting.batch_size, seed=0, augment=False)
            recalibrate(model, loader, limit=50)
        return accuracy(model, self.task.data.loader("test", batch_size=500))


@click.command()
@click.option("--task", type=click.Choice(sorted(NETWORKS)), required=True)
@click.option("--epochs", default=40, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--ablation", is_flag=True, help="Vary τ and K of sfw instead of comparing methods.")
@click.option("--train-size", type=int, help="Use a subset of the training images.")
@click.option("--lr", default=0.05, show_default=True, help="Of SGD.")
@click.option("--weight-decay", default=1e-4, show_default=True, help="Of SGD.")
@click.option("--sfw-lr", default=1.0, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--init-iterations", default=390, show_default=True)
@click.option("--norm", type=click.Choice(["expected", "start", "shape"]), default="expected", show_default=True)
@click.option("--recalibrate", is_flag=True, help="Measure BatchNorm statistics anew after each cut.")
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="JSON-lines file; default out/frank-wolfe-TASK.jsonl.")
def main(
    seeds: int, methods: tuple[str, ...], ablation: bool, threads: int, results: Path | None, **common: Any
) -> None:
    """Run what is missing and print the table."""
    setting = Setting(**common)
    torch.set_num_threads(threads)
    rows = Rows(results or Path("out") / f"frank-wolfe-{setting.task}.jsonl", asdict(setting))
    wanted = [
        Training(seed=seed, method=method, radius=radius, k_fraction=k)
        for seed in range(seeds)
        for method in (("sfw",) if ablation else methods)
        for radius in (RADII if ablation else (15.0,))
        for k in (K_FRACTIONS if ablation else (0.05,))
    ]
    trainings = Trainings(setting)
    for training in wanted:
        if rows.has(asdict(training)):
            continue
        started = time.perf_counter()
        model = trainings.trained(training)
        row: dict[str, Any] = {**asdict(setting), **asdict(training)}
        curve = one_shot_curve(model, trainings.accuracy, CUTS)
        row["one_shot"] = [asdict(cut) for cut in curve]
        row["natural_sparsity"] = natural_sparsity(curve, 0.005)
        row["seconds"] = round(time.perf_counter() - started, 1)
        rows.add(row)
    click.echo(table([row for row in rows if any(asdict(training).items() <= row.items() for training in wanted)]))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy in percent after each cut, with the standard deviation over seeds where there are several."""
    lines = [
        "| network | " + " | ".join(f"{100 * q:g}%" for q in CUTS) + " | natural |",
        "|---" * (len(CUTS) + 2) + "|",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sets = "" if row["method"] == "sgd" else f" τ {row['radius']:g} K {100 * row['k_fraction']:g}%"
        groups.setdefault(row["method"] + sets, []).append(row)
    for name, group in groups.items():
        columns = zip(*([cut["accuracy"] for cut in row["one_shot"]] for row in group), strict=True)
        natural = statistics.mean(row["natural_sparsity"] for row in group)
        lines.append(
            f"| {name} | " + " | ".join(cell(list(values)) for values in columns) + f" | {100 * natural:.0f}% |"
        )
    seeds = {row["seed"] for row in rows}
    note = (
        f"mean ± standard deviation over {len(seeds)} seed(s), test accuracy in %; natural: cut that costs 0.5 points"
    )
    return "\n".join([*lines, "", note])


def cell(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
