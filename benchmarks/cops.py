"""Time of a COPS mask: for a large network, and beside scipy's HiGHS on the same linear program.

    python benchmarks/cops.py

Scores are heavy-tailed, positive (as SNIP's) and of both signs (as GraSP's), 1 % of the weights live, α = 0.9.
Both solvers run alternately on fresh instances in one run; medians with the spread are printed.
"""

from __future__ import annotations

import statistics
import time

import click
import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from compress.cops import cops


def scores(seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Importances by target and control."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator) ** 3
    return base.abs(), 0.5 * base + torch.randn(size, generator=generator) ** 3


def highs(target: Tensor, control: Tensor, keep: int, kappa: float) -> float:
    """The optimum of (P1), what HiGHS makes of it."""
    first, second = (-(s.double() / s.double().abs().sum()).numpy() for s in (target, control))
    rows = np.stack([second, np.ones(len(first))])
    return float(linprog(first, A_ub=rows, b_ub=[kappa, keep], bounds=(0, 1), method="highs").fun)


def spread(values: list[float]) -> str:
    """Median and range, in seconds."""
    return f"{statistics.median(values):.4g} s ({min(values):.4g} to {max(values):.4g})"


@click.command()
@click.option("--large", default=25_600_000, show_default=True, help="Weights of the large network.")
@click.option("--small", default=100_000, show_default=True, help="Weights of the program that both solve.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--alpha", default=0.9, show_default=True)
def main(large: int, small: int, rounds: int, alpha: float) -> None:
    """Print both comparisons."""
    ours: list[float] = []
    theirs: list[float] = []
    gaps: list[float] = []
    for seed in range(rounds):
        target, control = scores(seed, small)
        started = time.perf_counter()
        solution = cops([target], [control], keep=small // 100, alpha=alpha)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        optimum = highs(target, control, small // 100, solution.kappa)
        theirs.append(time.perf_counter() - started)
        reached = -float(target.double()[solution.masks[0]].sum() / target.double().abs().sum())
        gaps.append(abs(reached - optimum) / abs(optimum))
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    click.echo(f"{small:,} weights: COPS {spread(ours)}, HiGHS {spread(theirs)}")
    click.echo(f"    ratio {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})")
    click.echo(f"    largest relative difference of the objectives {max(gaps):.1e}")
    times = []
    for seed in range(rounds):
        target, control = scores(seed, large)
        started = time.perf_counter()
        cops([target], [control], keep=large // 100, alpha=alpha)
        times.append(time.perf_counter() - started)
    click.echo(f"{large:,} weights: COPS {spread(times)}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
