"""Figure 1 of Ye et al. 2020: discrepancy against neurons, pruned or trained: python benchmarks/greedy_figure1.py

Simulated data: standard normal inputs, labels from a random network of one hidden layer, with noise. A network of two
hidden layers of 100 neurons is trained on them; its first hidden layer is thinned to every size by local and by global
imitation (squared discrepancy, every neuron tried), and networks of that size are trained from scratch in the same way,
once on the labels and once on the outputs of the whole network, which is what pruning imitates. D is E(f − F)² on the
data divided by the variance of F. Training is gradient descent, with which section 2.3 compares, or Adam.
Appendix 5.5 of the paper, which holds its set-up, was not at hand: the numbers here are this script's own. Prints a
table, the fits and writes the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.greedy.discrepancy import squared_error
from compress.greedy.global_steps import GlobalImitation
from compress.greedy.groups import find_groups
from compress.greedy.layerwise import Layerwise, Search
from compress.greedy.local import Imitation
from runtime_check.pictures.svg import Scale, line, linear, path, picture, text, ticks

Curve = dict[int, float]  # neurons -> D
HIDDEN = 100
SIZES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90)
STYLE = """<style>text{font:13px sans-serif;fill:#222}.grid{stroke:#ddd}.axis{stroke:#444}polyline{fill:none;
stroke-width:2}.c0{stroke:#1f5fbf}.c1{stroke:#c4441c}.c2{stroke:#2b8a3e}.c3{stroke:#888;stroke-dasharray:5 4}
.c4{stroke:#888}.dot{fill:#888}svg{background:#fff}</style>"""


def network(neurons: int, inputs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, neurons), nn.ReLU(), nn.Linear(neurons, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
    )


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int, method: str) -> nn.Module:
    """All data in every step, cosine schedule."""
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if method == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def pruned(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> dict[str, Curve]:
    """D of every size that the searches pass; a larger size that is worse takes the smaller solution."""
    group = find_groups(model, x[:1]).groups[0]
    layerwise = Layerwise(model, [(x, y)], Search(discrepancy="squared", refit=True))
    layerwise.advance(group)
    local = layerwise.local(group, HIDDEN - 1)
    found: dict[str, dict[int, float]] = {"local": {}, "global": {}, "local, refit": {}}
    for size, one in local.items():
        found["local"][size] = layerwise.discrepancy(group, one)
        found["local, refit"][size] = layerwise.discrepancy(group, one, layerwise.refit(group, one))
    search = GlobalImitation(layerwise.replay, group, layerwise.full, squared_error, exact_size=HIDDEN, seed=0)
    for number, (a, value) in enumerate(takewhile(lambda state: np.count_nonzero(state[0]) < HIDDEN, search.steps(0))):
        size = int(np.count_nonzero(a))
        found["global"][size] = min(value, found["global"].get(size, np.inf))
        if number >= steps:
            break
    return {name: _falling(curve) for name, curve in found.items()}


def random_choice(model: nn.Module, x: Tensor, y: Tensor) -> Curve:
    """Equal shares for random neurons, the median of 20 draws."""
    group = find_groups(model, x[:1]).groups[0]
    layerwise, rng = Layerwise(model, [(x, y)], Search(discrepancy="squared")), np.random.default_rng(0)
    layerwise.advance(group)

    def draw(size: int) -> float:
        kept = np.sort(rng.choice(HIDDEN, size, replace=False))
        return layerwise.discrepancy(group, Imitation(kept=kept, shares=np.full(size, 1 / size), discrepancy=0.0))

    return {size: float(np.median([draw(size) for _ in range(20)])) for size in SIZES}


def _falling(curve: Curve) -> Curve:
    sizes = sorted(curve)
    return dict(zip(sizes, np.minimum.accumulate([curve[size] for size in sizes]).tolist(), strict=True))


def fit(curve: Curve, *, power: bool, sizes: tuple[int, int]) -> tuple[float, float]:
    """Slope of ln D against n, or against ln n, by least squares over these sizes, and R²."""
    inside = [n for n in curve if sizes[0] <= n <= sizes[1]]
    x = np.log(inside) if power else np.array(inside, dtype=float)
    y = np.log([max(curve[n], 1e-30) for n in inside])
    slope, start = np.polyfit(x, y, 1)
    rest = y - slope * x - start
    return float(slope), float(1 - rest.var() / y.var())


def draw(curves: Mapping[str, Curve]) -> str:
    """An SVG: log10 D against neurons."""
    logs = {name: {n: np.log10(max(d, 1e-30)) for n, d in curve.items()} for name, curve in curves.items()}
    low = np.floor(min(min(curve.values()) for curve in logs.values()))
    high = np.ceil(max(max(curve.values()) for curve in logs.values()))
    x: Scale = linear(0, HIDDEN, 64, 620)
    y: Scale = linear(low, high, 380, 30)
    parts = [STYLE]
    for tick in ticks(0, HIDDEN, 10):
        parts += [line(x(tick), 30, x(tick), 380, "grid"), text(x(tick), 398, f"{tick:.0f}", "", "middle")]
    for power in range(int(low), int(high) + 1):
        parts += [line(64, y(power), 620, y(power), "grid"), text(56, y(power) + 4, f"1e{power}", "", "end")]
    for number, (name, curve) in enumerate(logs.items()):
        parts.append(path([(x(n), y(value)) for n, value in sorted(curve.items())], f"c{number}"))
        parts += [line(636, 46 + 22 * number, 664, 46 + 22 * number, f"c{number}"), text(672, 50 + 22 * number, name)]
    parts += [text(342, 418, "neurons left in the first hidden layer", "", "middle"), text(8, 20, "D / var F")]
    told = "; ".join(f"{name} reaches {min(curve.values()):.1e}" for name, curve in curves.items())
    svg = picture(880, 426, "Discrepancy against neurons", told, parts)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="880" height="426" ', 1)


def table(curves: Mapping[str, Curve], fits: Sequence[tuple[str, str, float, float]]) -> str:
    lines = ["| D / var F at | " + " | ".join(map(str, SIZES)) + " |", "|---" * (len(SIZES) + 1) + "|"]
    for name, curve in curves.items():
        cells = [min((d for n, d in curve.items() if n <= size), default=float("nan")) for size in SIZES]
        lines.append(f"| {name} | " + " | ".join(f"{value:.1e}" for value in cells) + " |")
    lines += ["", "| fit | slope | R² |", "|---|---:|---:|"]
    lines += [f"| {name}, {law} | {slope:.3f} | {square:.3f} |" for name, law, slope, square in fits]
    return "\n".join(lines)


@click.command()
@click.option("--samples", default=1000, show_default=True)
@click.option("--inputs", default=10, show_default=True)
@click.option("--steps", default=2000, show_default=True, help="of training, of whole and small networks alike")
@click.option("--optimizer", type=click.Choice(["gd", "adam"]), default="gd", show_default=True)
@click.option("--global-steps", default=400, show_default=True)
@click.option("--seeds", default=2, show_default=True, help="of trainings from scratch; the median is taken")
@click.option("--picture", "file", type=click.Path(path_type=Path), default=Path("docs/pictures/greedy_figure1.svg"))
def main(samples: int, inputs: int, steps: int, optimizer: str, global_steps: int, seeds: int, file: Path) -> None:
    """Train, prune, fit, draw."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(samples, inputs)
    teacher = nn.Sequential(nn.Linear(inputs, 20), nn.Tanh(), nn.Linear(20, 1)).requires_grad_(False)
    y = teacher(x)
    y = (y - y.mean()) / y.std() + 0.1 * torch.randn_like(y)
    whole = trained(network(HIDDEN, inputs, 1), x, y, steps, optimizer)
    with torch.no_grad():
        full = whole(x)
    curves = pruned(whole, x, y, global_steps)
    for name, target in (("trained on labels", y), ("trained on outputs", full)):
        curves[name] = {}
        for size in SIZES:
            found = [trained(network(size, inputs, 2 + seed), x, target, steps, optimizer) for seed in range(seeds)]
            with torch.no_grad():
                curves[name][size] = float(np.median([squared_error(one(x), full) for one in found]))
    curves["random, equal shares"] = random_choice(whole, x, y)
    variance = float(full.var())
    curves = {name: {n: d / variance for n, d in curve.items()} for name, curve in curves.items()}
    fits = []
    for name in curves:
        for law in ("exponential", "power"):
            fits.append((name, law, *fit(curves[name], power=law == "power", sizes=(5, 90))))
    file.parent.mkdir(parents=True, exist_ok=True)
    shown = {name: curve for name, curve in curves.items() if not name.startswith("random")}
    file.write_text(draw(shown), encoding="utf-8")
    click.echo(table(curves, fits))


if __name__ == "__main__":
    main()
