"""Greedy imitation beside other ways to choose channels: python benchmarks/greedy_quality.py --help

    python benchmarks/greedy_quality.py --task digits --network resnet20 --seeds 2

One trained network a seed; every method removes hidden channels of it until the same fraction of its MACs is left, and
what is left is fine-tuned alike. Accuracy on the test images is taken three times: as cut; with BatchNorm statistics
measured anew on the calibration images, for every method in the same way; and after fine-tuning. All see the same 512
training images, and may take the same channels: hidden ones of residual blocks, expanded ones of inverted residuals.

- ours: local, global and both, as in the paper, and with the refit of the layers that read the channels.
- L1, random: the same fraction of every group, the channels of largest L1 norm or random ones; also with the refit.
- Torch-Pruning 1.6.1 with its magnitude, Taylor and Hessian importance, at the same fraction of every group and with
  one ranking for all groups ("global"). The Hessian's `accumulate_grad` keeps the last sample alone (it looks for a
  parameter's name where it stores the parameter), so its squared gradients are averaged here.

Results are appended to a JSON-lines file, so that a run that stopped goes on where it was.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch_pruning as tp
from macs import count_macs
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

from compress.greedy.groups import Network, find_groups
from compress.greedy.layerwise import Layerwise, Search
from compress.greedy.local import Imitation
from compress.greedy.thinning import Thinned, shrink_plan
from compress.learning_rate import LearningRate
from compress.methods import GreedyImitation
from compress.recalibration import recalibrate
from compress.shrink import apply_plan
from compress.train import TrainSettings, accuracy, fit
from compress_then_export.data import Dataset, open_data
from compress_then_export.models import build

Pairs = list[tuple[Tensor, Tensor]]
BATCHES, BATCH = 8, 64

# Four times less downsampling than for 224x224, or nothing would be left of 32x32.
_BLOCKS = [
    [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1],
]  # fmt: skip
NETWORKS: dict[str, tuple[str, dict[str, Any], float]] = {  # source, arguments, learning rate
    "resnet20": ("builtin:resnet20", {}, 0.1),
    "resnet56": ("builtin:resnet56", {}, 0.1),
    "mobilenet_v2": ("torchvision:mobilenet_v2", {"inverted_residual_setting": _BLOCKS}, 0.05),
}
TASKS: dict[str, tuple[dict[str, Any], int, int]] = {  # data, epochs of training and of fine-tuning
    "digits": ({"source": "digits"}, 20, 2),
    "patches": ({"source": "patches", "train_size": 2000}, 10, 1),
}


class Task:
    """Data and trained network of one seed."""

    def __init__(self, task: str, network: str, seed: int, folder: Path) -> None:
        spec, self.epochs, self.fine_tuning = TASKS[task]
        self.source, self.args, self.lr = NETWORKS[network]
        self.seed = seed
        self.data: Dataset = open_data(spec, input_shape=(3, 32, 32), fixed_size=False)
        self.model = self._trained(folder / f"greedy-quality-{task}-{network}-{seed}.pt")
        self.calibration: Pairs = list(
            islice(self.data.loader("train", batch_size=BATCH, seed=seed, augment=False), BATCHES)
        )
        example = self.calibration[0][0][:1]
        self.network = find_groups(self.model, example)
        self.macs = count_macs(self.model, example)
        self._gradients: dict[str, list[Tensor]] = {}

    def _trained(self, file: Path) -> nn.Module:
        torch.manual_seed(self.seed)
        model = build(self.source, args=self.args, num_classes=self.data.num_classes, in_channels=3)
        if file.exists():
            model.load_state_dict(torch.load(file, weights_only=True))
        else:
            self.train(model, self.epochs, self.lr)
            torch.save(model.state_dict(), file)
        return model.eval()

    def train(self, model: nn.Module, epochs: int, lr: float) -> None:
        schedule = LearningRate(schedule="cosine")
        settings = TrainSettings(
            epochs=epochs, batch_size=BATCH, lr=lr, weight_decay=5e-4, seed=self.seed, learning_rate=schedule
        )
        fit(model, self.data.loader("train", batch_size=BATCH, seed=self.seed), settings)
        model.eval()

    def accuracy(self, model: nn.Module) -> float:
        return 100 * accuracy(model, self.data.loader("test", batch_size=512))

    def gradients(self, importance: str) -> list[Tensor]:
        """What an importance of Torch-Pruning wants to find as the gradient of every parameter."""
        if importance not in self._gradients:
            model, squared = copy.deepcopy(self.model), importance == "hessian"
            sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
            for inputs, labels in self.calibration if importance != "magnitude" else ():
                for x, y in zip(
                    inputs.split(1 if squared else BATCH), labels.split(1 if squared else BATCH), strict=True
                ):
                    loss = functional.cross_entropy(model(x), y)
                    found = torch.autograd.grad(loss, list(model.parameters()))
                    for total, gradient in zip(sums, found, strict=True):
                        total += (gradient.square() if squared else gradient) / (BATCHES * BATCH / len(x))
            self._gradients[importance] = sums
        return self._gradients[importance]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Accuracy in percent as cut, with BatchNorm statistics measured anew, and fine-tuned."""
        row = {"macs_left": count_macs(model, self.calibration[0][0][:1]) / self.macs, "as_cut": self.accuracy(model)}
        recalibrated = copy.deepcopy(model)
        recalibrate(recalibrated, self.calibration)
        row["recalibrated"] = self.accuracy(recalibrated)
        self.train(model, self.fine_tuning, self.lr / 5)
        return {**row, "fine_tuned": self.accuracy(model)}


def ours(**settings: Any) -> Callable[[Task, float], nn.Module]:
    def method(task: Task, macs: float) -> nn.Module:
        model = copy.deepcopy(task.model)
        GreedyImitation(macs=macs, seed=task.seed, **settings).attach(model, task.calibration)
        return model

    return method


def uniform(
    score: Callable[[Task, nn.Module, int], np.ndarray[Any, Any]], *, refit: bool = False
) -> Callable[[Task, float], nn.Module]:
    """The same fraction of every group, the channels of the highest scores; the widest network that fits.

    With ``refit`` the layers that read the channels get new weights by least squares, as imitation's do.
    """

    def method(task: Task, macs: float) -> nn.Module:
        network: Network = task.network
        scores = [
            score(task, task.model.get_submodule(group.name), number) for number, group in enumerate(network.groups)
        ]
        for step in range(1, 200):
            thinned = []
            for group, values in zip(network.groups, scores, strict=True):
                width = max(1, round(group.units * (1 - step / 200)))
                kept = np.sort(np.argsort(-values, kind="stable")[:width])
                shares = np.full(width, 1 / width)
                thinned.append((group, Imitation(kept=kept, shares=shares, discrepancy=0.0)))
            plan = shrink_plan(task.model, network, thinned, scaled=False)
            model = apply_plan(copy.deepcopy(task.model), plan)
            if count_macs(model, task.calibration[0][0][:1]) <= macs * task.macs:
                return apply_plan(_refitted(task, thinned), plan) if refit else model
        raise ValueError(f"macs: {macs} is out of reach")

    return method


def _refitted(task: Task, thinned: Thinned) -> nn.Module:
    """The whole network with these channels masked, group by group, and their readers refitted."""
    layerwise = Layerwise(task.model, task.calibration, Search(imitation="local", refit=True))
    for group, imitation in thinned:
        layerwise.advance(group)
        layerwise.local(group, 1)  # sums up the second moments
        layerwise.settle(group, imitation, layerwise.refit(group, imitation))
    return layerwise.replay.model.requires_grad_(True)


def torch_pruning(importance: str, *, ranked_globally: bool) -> Callable[[Task, float], nn.Module]:
    def method(task: Task, macs: float) -> nn.Module:
        model = copy.deepcopy(task.model)
        example = task.calibration[0][0][:1]
        scorer = IMPORTANCES[importance]()
        for parameter, gradient in zip(model.parameters(), task.gradients(importance), strict=True):
            parameter.grad = gradient.clone()
        hidden = {group.name for group in task.network.groups}
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))]
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=scorer,
            global_pruning=ranked_globally,
            pruning_ratio=1.0,
            max_pruning_ratio=0.98,  # or one ranking for all empties whole groups
            iterative_steps=200,
            ignored_layers=[module for name, module in layers if name not in hidden and not _depthwise(module)],
        )
        for _ in range(200):
            if count_macs(model, example) <= macs * task.macs:
                break
            pruner.step()
        return model.eval()

    return method


IMPORTANCES: dict[str, Callable[[], Any]] = {
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
}


def _random(task: Task, layer: nn.Module, number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([task.seed, number]).random(len(layer.weight))  # type: ignore[arg-type]


def _l1_norm(_: Task, layer: nn.Module, __: int) -> np.ndarray[Any, Any]:
    norms: Tensor = layer.weight.detach().abs().flatten(1).sum(1)  # type: ignore[operator,union-attr]
    return norms.numpy()


METHODS: dict[str, Callable[[Task, float], nn.Module]] = {
    "random": uniform(_random),
    "random, refit": uniform(_random, refit=True),
    "L1": uniform(_l1_norm),
    "L1, refit": uniform(_l1_norm, refit=True),
    "Torch-Pruning magnitude": torch_pruning("magnitude", ranked_globally=False),
    "Torch-Pruning magnitude, global": torch_pruning("magnitude", ranked_globally=True),
    "Torch-Pruning Taylor": torch_pruning("taylor", ranked_globally=False),
    "Torch-Pruning Taylor, global": torch_pruning("taylor", ranked_globally=True),
    "Torch-Pruning Hessian": torch_pruning("hessian", ranked_globally=False),
    "Torch-Pruning Hessian, global": torch_pruning("hessian", ranked_globally=True),
    "local": ours(imitation="local", refit=False),
    "global": ours(imitation="global", refit=False),
    "both": ours(imitation="both", refit=False),
    "local, refit": ours(imitation="local", refit=True),
    "both, refit": ours(imitation="both", refit=True),
}


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown: methods against fractions of MACs; accuracy as cut / recalibrated / fine-tuned, mean over seeds."""
    fractions = sorted({row["macs"] for row in rows if row["macs"] < 1}, reverse=True)
    seeds = len({row["seed"] for row in rows})
    lines = ["| method | " + " | ".join(f"{f:.0%} of the MACs" for f in fractions) + " |", "|---" * 4 + "|"]
    dense = [row["fine_tuned"] for row in rows if row["macs"] == 1]
    lines.append(f"| whole network: {statistics.mean(dense):.2f} | | | |")
    for name in METHODS:
        cells = []
        for fraction in fractions:
            found = [row for row in rows if row["method"] == name and row["macs"] == fraction]
            figures = [[row[key] for row in found] for key in ("as_cut", "recalibrated", "fine_tuned")]
            cells.append(" / ".join(_cell(values) for values in figures) if found else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{seeds} seed(s); {len(rows)} rows"])


def _cell(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


@click.command()
@click.option("--task", type=click.Choice(sorted(TASKS)), required=True)
@click.option("--network", type=click.Choice(sorted(NETWORKS)), required=True)
@click.option("--seeds", default=1, show_default=True)
@click.option("--macs", "fractions", multiple=True, type=float, default=(0.75, 0.5, 0.35), show_default=True)
@click.option("--method", "names", multiple=True, type=click.Choice(list(METHODS)))
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="JSON-lines file; trained networks lie beside it.")
def main(
    task: str,
    network: str,
    seeds: int,
    fractions: tuple[float, ...],
    names: tuple[str, ...],
    threads: int,
    results: Path | None,
) -> None:
    """Run what is missing and print the table."""
    torch.set_num_threads(threads)
    common = {"task": task, "network": network}
    rows = Rows(results or Path("out") / "greedy-quality.jsonl", common)
    wanted = [(1.0, "dense"), *product(fractions, names or tuple(METHODS))]
    for seed in range(seeds):
        work: Task | None = None
        for fraction, name in wanted:
            row: dict[str, Any] = {**common, "seed": seed, "method": name, "macs": fraction}
            if rows.has(row):
                continue
            work = work or Task(task, network, seed, rows.path.parent)
            started = time.perf_counter()
            if name == "dense":
                row["fine_tuned"] = work.accuracy(work.model)
            else:
                model = METHODS[name](work, fraction)
                row |= {"seconds_to_cut": round(time.perf_counter() - started, 1), **work.measure(model)}
            rows.add({**row, "seconds": round(time.perf_counter() - started, 1)})
    click.echo(report(rows))


if __name__ == "__main__":
    main()
