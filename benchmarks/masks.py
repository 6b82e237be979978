"""Do the masks order as their papers say? Accuracy of every method at equal epochs, and the gradient flow at the start.

    python benchmarks/masks.py --task digits --epochs 40 --seeds 3
    python benchmarks/masks.py --task patches --epochs 10 --train-size 4000 --seeds 1

All methods train the same number of epochs from the same initial weights (Xavier-normal for LeNet-5-Caffe,
Kaiming-uniform otherwise; FreezeNet draws its own by the same rule) with the thesis's optimizer: SGD with momentum,
step schedule, weight decay 5e-4. A fifth of the training images is held out: the α of COPS is the one of the grid
with the best mean accuracy there, as in 000, section IV. Test accuracy is that after the last epoch. Results are
appended to a JSON-lines file, so a run that stopped goes on where it was. ``--flow`` prints Figure 3.1 of 002 as a
table: the norm of the gradient of the trained weights before training, relative to the dense network's.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch
from rows import Rows
from tasks import NETWORKS, Task
from torch import nn
from torch.nn import functional
from training import train

from compress.learning_rate import LearningRate
from compress.methods import DPF, SET, AtInit, FreezeNet, Gradual, Method, RigL
from compress.prunable import prunable_weights
from compress.train import TrainSettings, accuracy
from compress_then_export.data import Dataset

INITIALISATION = {"digits": "xavier_normal", "patches": "kaiming_uniform"}
ALPHAS = (0.1, 0.5, 0.9, 0.99, 0.9999)


def at_init(sparsity: float, score: str, **settings: Any) -> Method:
    return AtInit(sparsity=sparsity, score=score, **settings)


Factory = Callable[[float, str], Method]
METHODS: dict[str, Factory] = {
    "random": lambda q, _: at_init(q, "random"),
    "magnitude": lambda q, _: at_init(q, "magnitude"),
    "snip": lambda q, _: at_init(q, "snip"),
    "grasp": lambda q, _: at_init(q, "grasp", per_class=10),
    "synflow": lambda q, _: at_init(q, "synflow", rounds=100),
    **{f"g-cops {a}": lambda q, _, a=a: at_init(q, "snip", control="grasp", alpha=a) for a in ALPHAS},
    "freezenet": lambda q, init: FreezeNet(sparsity=q, initialisation=init),
    "freezenet-wd": lambda q, init: FreezeNet(sparsity=q, initialisation=init, weight_decay=True),
    "set": lambda q, _: SET(sparsity=q, period=20),
    "rigl": lambda q, _: RigL(sparsity=q, period=20),
    "gradual": lambda q, _: Gradual(sparsity=q, period=16, skip_last_linear=False),
    "dpf": lambda q, _: DPF(sparsity=q, skip_last_linear=False),
    "ip-snip": lambda q, _: at_init(q, "snip", interspace="fine"),
    "ip-grasp": lambda q, _: at_init(q, "grasp", per_class=10, interspace="fine"),
    "ip-set": lambda q, _: SET(sparsity=q, period=20, interspace="fine"),
    "ip-gradual": lambda q, _: Gradual(sparsity=q, period=16, skip_last_linear=False, interspace="fine"),
    "ip-dpf": lambda q, _: DPF(sparsity=q, skip_last_linear=False, interspace="fine"),
    "ip-freezenet": lambda q, init: FreezeNet(sparsity=q, initialisation=init, interspace="fine"),
}
CLAIMS = (
    ("g-cops", "snip", "000: at least"),
    ("g-cops", "grasp", "000: at least"),
    ("freezenet", "snip", "002, chapter 3: far above at extreme rates"),
    ("freezenet-wd", "snip", "002, chapter 3: above at low rates"),
    ("ip-snip", "snip", "002, chapter 5: above"),
    ("ip-grasp", "grasp", "002, chapter 5: above"),
    ("ip-set", "set", "002, chapter 5: above"),
    ("ip-gradual", "gradual", "002, chapter 5: above"),
    ("ip-dpf", "dpf", "above, if the interspace helps here too"),
    ("ip-freezenet", "freezenet", "002, section 5.5.6: above"),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every row of one table has in common, and every row of the file carries."""

    task: str
    epochs: int
    train_size: int | None
    lr: float
    batch_size: int
    weight_decay: float


class Trainings:
    """Data and networks of one seed."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.seed = setting, seed
        self.task = Task(setting.task, setting.train_size)
        data = self.task.data
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed)).tolist()
        held = len(order) // 5
        self.data: Dataset = replace(data, train=data.train.subset(order[held:]))
        self.validation: Dataset = replace(data, test=data.train.subset(order[:held]))

    def model(self) -> nn.Module:
        model = self.task.network(self.seed)
        for weight in prunable_weights(model, skip_last_linear=False).weights:
            tensor = weight.module.weight
            assert isinstance(tensor, nn.Parameter)
            if INITIALISATION[self.setting.task] == "xavier_normal":
                nn.init.xavier_normal_(tensor)
            else:
                nn.init.kaiming_uniform_(tensor, nonlinearity="relu")
        return model

    def pruner(self, name: str, sparsity: float) -> Method | None:
        return None if name == "dense" else METHODS[name](sparsity, INITIALISATION[self.setting.task])

    def run(self, name: str, sparsity: float) -> dict[str, float]:
        """Train one network; its accuracy on the test images and on those held out."""
        setting = self.setting
        loader = self.data.loader("train", batch_size=setting.batch_size, seed=self.seed)
        settings = TrainSettings(
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            lr=setting.lr,
            nesterov=False,
            weight_decay=setting.weight_decay,
            seed=self.seed,
            learning_rate=LearningRate(schedule="step"),
        )
        model = self.model()
        train(model, loader, settings, self.pruner(name, sparsity))
        return {
            "accuracy": accuracy(model, self.data.loader("test", batch_size=500)),
            "validation": accuracy(model, self.validation.loader("test", batch_size=500)),
        }

    def flow(self, name: str, sparsity: float) -> float:
        """Norm of the gradient of the trained weights before training, over ten batches."""
        model = self.model()
        loader = self.data.loader("train", batch_size=self.setting.batch_size, seed=self.seed, augment=False)
        pruner = self.pruner(name, sparsity)
        if pruner is not None:
            pruner.attach(model, loader)
        for inputs, labels in islice(loader, 10):
            functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        squares = 0.0
        for module in model.modules():
            for key, parameter in module._parameters.items():
                # A plain layer calls it weight, one with the formula original; biases and norms are not weights.
                if key in ("weight", "original") and parameter is not None and parameter.grad is not None:
                    squares += float(parameter.grad.square().sum())
        return math.sqrt(squares)


@click.command()
@click.option("--task", type=click.Choice(sorted(NETWORKS)), required=True)
@click.option("--epochs", default=40, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option(
    "--sparsity", "sparsities", multiple=True, type=float, default=(0.9, 0.95, 0.99, 0.998), show_default=True
)
@click.option("--method", "methods", multiple=True, type=click.Choice(["dense", *METHODS]))
@click.option("--train-size", type=int, help="Use a subset of the training images.")
@click.option("--lr", default=0.1, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--weight-decay", default=5e-4, show_default=True)
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--flow", is_flag=True, help="Print the gradient flow before training and stop.")
@click.option("--results", type=click.Path(path_type=Path), help="JSON-lines file; default out/masks-TASK.jsonl.")
def main(
    seeds: int,
    sparsities: tuple[float, ...],
    methods: tuple[str, ...],
    threads: int,
    flow: bool,
    results: Path | None,
    **common: Any,
) -> None:
    """Run what is missing; print the table and what became of the papers' orderings."""
    setting = Setting(**common)
    torch.set_num_threads(threads)
    methods = methods or ("dense", *METHODS)
    if flow:
        click.echo(flow_table(setting, seeds, sparsities, methods))
        return
    rows = Rows(results or Path("out") / f"masks-{setting.task}.jsonl", asdict(setting))
    for seed in range(seeds):
        trainings = Trainings(setting, seed)
        for sparsity in sparsities:
            for name in methods:
                key = {"seed": seed, "method": name, "sparsity": 0.0 if name == "dense" else sparsity}
                if rows.has(key):
                    continue
                started = time.perf_counter()
                row: dict[str, Any] = asdict(setting) | key
                try:
                    row |= trainings.run(name, sparsity)
                except ValueError as error:  # a training that diverges is a result as well
                    if not str(error).startswith("train.lr:"):
                        raise
                    row |= {"accuracy": math.nan, "validation": math.nan, "error": str(error)}
                row["seconds"] = round(time.perf_counter() - started, 1)
                rows.add(row)
    click.echo(report(rows, sparsities))


def flow_table(setting: Setting, seeds: int, sparsities: tuple[float, ...], methods: tuple[str, ...]) -> str:
    lines = [_header("gradient norm relative to dense", sparsities)]
    dense = [Trainings(setting, seed).flow("dense", 0.0) for seed in range(seeds)]
    for name in methods:
        cells = []
        for sparsity in sparsities:
            ratios = [Trainings(setting, seed).flow(name, sparsity) / dense[seed] for seed in range(seeds)]
            cells.append(f"{statistics.mean(ratios):.3g}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(rows: list[dict[str, Any]], sparsities: tuple[float, ...]) -> str:
    """Mean accuracy in percent with the standard deviation over seeds, and each claim's difference, seed by seed."""
    names = list(dict.fromkeys(row["method"] for row in rows if not row["method"].startswith("g-cops")))
    lines = [_header("method", sparsities)]
    cells: dict[tuple[str, float], dict[int, float]] = {}
    chosen: dict[float, str] = {}
    for sparsity in sparsities:
        for name in names:
            wanted = 0.0 if name == "dense" else sparsity
            cells[name, sparsity] = _by_seed(rows, name, wanted, "accuracy")
        validation = {a: _by_seed(rows, f"g-cops {a}", sparsity, "validation") for a in ALPHAS}
        seeds = max(map(len, validation.values()))
        complete = [a for a in ALPHAS if seeds and len(validation[a]) == seeds]
        if complete:
            best = max(complete, key=lambda a: _mean(validation[a]))
            chosen[sparsity] = f" (α = {best})"
            cells["g-cops", sparsity] = _by_seed(rows, f"g-cops {best}", sparsity, "accuracy")
    for name in (*names, "g-cops"):
        texts = [_cell(cells.get((name, q), {})) + (chosen.get(q, "") if name == "g-cops" else "") for q in sparsities]
        if any(texts):
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    lines += ["", _header("first minus second", sparsities)]
    for first, second, claim in CLAIMS:
        gaps = []
        for sparsity in sparsities:
            ones, others = cells.get((first, sparsity), {}), cells.get((second, sparsity), {})
            gaps.append(_cell({seed: ones[seed] - others[seed] for seed in ones.keys() & others.keys()}))
        if any(gaps):
            lines.append(f"| {first} − {second} ({claim}) | " + " | ".join(gaps) + " |")
    return "\n".join(lines)


def _by_seed(rows: list[dict[str, Any]], name: str, sparsity: float, figure: str) -> dict[int, float]:
    found = [row for row in rows if row["method"] == name and row["sparsity"] == sparsity]
    return {row["seed"]: 100 * row[figure] for row in found}


def _mean(values: dict[int, float]) -> float:
    finite = values and not any(map(math.isnan, values.values()))
    return statistics.mean(values.values()) if finite else -math.inf


def _cell(values: dict[int, float]) -> str:
    """Mean and standard deviation of the trainings that did not diverge, and how many did."""
    finite = [value for value in values.values() if not math.isnan(value)]
    diverged = len(values) - len(finite)
    note = f" ({diverged} of {len(values)} diverged)" if diverged else ""
    if not finite:
        return note.strip()
    spread = f" ± {statistics.stdev(finite):.2f}" if len(finite) > 1 else ""
    return f"{statistics.mean(finite):.2f}{spread}{note}"


def _header(first: str, sparsities: tuple[float, ...]) -> str:
    titles = " | ".join(f"{sparsity:.1%}" for sparsity in sparsities)
    return f"| {first} | {titles} |\n" + "|---" * (len(sparsities) + 1) + "|"


if __name__ == "__main__":
    main()
