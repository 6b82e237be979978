"""Costs against the cut network's own figures, and allocation against trying everything."""

from __future__ import annotations

import copy
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from greedy_checks import choose
from shrink_checks import set_norms
from torch import nn

from compress.greedy.allocation import Allowed, descend, first_within, hull
from compress.greedy.calls import observe
from compress.greedy.costs import COSTS, Costs
from compress.greedy.groups import find_groups
from compress.greedy.local import Imitation
from compress.greedy.thinning import shrink_plan
from compress.shrink import apply_plan
from compress_then_export.models import build


def macs(model: nn.Module, x: torch.Tensor) -> int:
    total, calls = 0, observe(model, x)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += calls.positions[name] * module.weight.numel()
    return total


@pytest.mark.parametrize("source", ["builtin:resnet20", "builtin:lenet5_caffe", "torchvision:mobilenet_v3_small"])
def test_costs_are_those_of_the_cut_network(source: str) -> None:
    torch.manual_seed(0)
    model = set_norms(build(source))
    x = torch.randn(1, 1, 28, 28) if source == "builtin:lenet5_caffe" else torch.randn(1, 3, 32, 32)
    network = find_groups(model, x, streams=True)
    costs, rng = Costs(model, network), np.random.default_rng(0)
    assert all(costs.fraction(cost, [g.units for g in network.groups]) == 1 for cost in COSTS)
    thinned = [(group, choose(group, rng, rng.uniform(0.2, 0.9))) for group in network.groups]
    cut = apply_plan(copy.deepcopy(model), shrink_plan(model, network, thinned))
    widths = [imitation.size for _, imitation in thinned]
    state = [*cut.parameters(), *cut.buffers()]
    assert costs.of("macs", widths) == pytest.approx(macs(cut, x), rel=1e-12)
    assert costs.of("parameters", widths) == pytest.approx(sum(p.numel() for p in cut.parameters()), rel=1e-12)
    assert costs.of("size", widths) == pytest.approx(sum(t.numel() * t.element_size() for t in state), rel=1e-12)
    for cost in COSTS:
        steps = []
        for group in range(len(widths)):
            up, down = list(map(float, widths)), list(map(float, widths))
            up[group] += 1e-3
            down[group] -= 1e-3
            steps.append((costs.of(cost, np.array(up)) - costs.of(cost, np.array(down))) / 2e-3)
        assert np.allclose(costs.savings(cost, widths), steps, rtol=1e-5)


def test_grouped_convolutions_count_a_fixed_number_of_inputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()
    x = torch.randn(1, 3, 6, 6)
    network = find_groups(model, x)
    costs = Costs(model, network)
    kept = Imitation(kept=np.array([0, 2]), shares=np.array([0.5, 0.5]), discrepancy=0.0)
    cut = apply_plan(copy.deepcopy(model), shrink_plan(model, network, [(network.groups[0], kept)]))
    assert costs.of("macs", [2]) == macs(cut, x)
    assert costs.of("parameters", [2]) == sum(p.numel() for p in cut.parameters())


def test_allowed_widths() -> None:
    assert Allowed(units=10, channels=1, round_to=4).widths() == [4, 8, 10]
    assert Allowed(units=6, channels=4, round_to=8).widths() == [2, 4, 6]
    assert Allowed(units=3, channels=1, round_to=8).widths() == [3]
    assert Allowed(units=3072, channels=1, round_to=1).widths()[:2] == [48, 96]
    assert len(Allowed(units=3072, channels=1, round_to=1).widths()) == 64


def test_hull() -> None:
    curve = {1: 9.0, 2: 4.0, 3: 5.0, 4: 3.9, 5: 0.5}
    assert hull(curve, [1, 2, 3, 4, 5, 6]) == [(6, 0.0), (5, 0.5), (2, 4.0), (1, 9.0)]
    assert hull({3: 1.0}, [2, 4, 8]) == [(8, 0.0), (4, 1.0)]  # nothing is known of 2 units
    assert hull({}, [2, 8]) == [(8, 0.0)]


def chain() -> tuple[nn.Module, Costs]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    return model, Costs(model, find_groups(model, torch.randn(2, 4)))


@pytest.mark.parametrize("seed", range(5))
def test_widths_are_close_to_the_best_of_all(seed: int) -> None:
    """Greedy descent on convex curves against every combination, at each cost that it passes."""
    _, costs = chain()
    rng = np.random.default_rng(seed)
    curves = [
        {w: float(rng.uniform(0.5, 2) * np.exp(-rng.uniform(0.5, 1) * w)) for w in range(1, n)} for n in (6, 6, 5)
    ]
    hulls = [hull(curve, range(1, n + 1)) for curve, n in zip(curves, (6, 6, 5), strict=True)]
    values = [dict(points) for points in hulls]

    def total(widths: tuple[int, ...]) -> float:
        return sum(value[w] for value, w in zip(values, widths, strict=True))

    path = descend(costs, {"macs": 0.0}, hulls, [sorted(value) for value in values])
    assert path[0] == [6, 6, 5]
    assert path[-1] == [1, 1, 1]
    assert all(sum(a) > sum(b) for a, b in pairwise(path))
    everything = list(product(*(value.keys() for value in values)))
    losses = []
    for widths in path:
        bound = costs.of("macs", widths)
        best = min(total(one) for one in everything if costs.of("macs", one) <= bound)
        losses.append(total(tuple(widths)) - best)
    assert max(losses) < 0.35
    assert np.median(losses) < 0.05


def test_targets() -> None:
    _, costs = chain()
    choices = [range(1, 7), range(1, 7), range(1, 6)]
    hulls = [[(6, 0.0), (1, 1.0)], [(6, 0.0), (1, 3.0)], [(5, 0.0), (1, 2.0)]]
    corners = descend(costs, {"parameters": 0.0}, hulls, [(1, 6), (1, 6), (1, 5)])
    assert corners[:2] == [[6, 6, 5], [1, 6, 5]]  # the cheapest in discrepancy
    path = descend(costs, {"parameters": 0.0}, hulls, choices)
    assert path[:7] == [[6, 6, 5], [5, 6, 5], [4, 6, 5], [3, 6, 5], [2, 6, 5], [1, 6, 5], [1, 6, 4]]
    assert first_within(path, costs, {"parameters": 1.0}) == [6, 6, 5]
    assert first_within(corners, costs, {"parameters": 0.6}) == [1, 6, 5]
    widths = first_within(path, costs, {"parameters": 0.6})
    assert widths[1:] == [6, 5]
    assert costs.fraction("parameters", widths) <= 0.6 < costs.fraction("parameters", [widths[0] + 1, 6, 5])
    left = costs.fraction("parameters", [1, 1, 1])
    with pytest.raises(ValueError, match=rf"parameters: 0\.01 cannot be met; .* {left:.4f} of them is left"):
        first_within(path, costs, {"parameters": 0.01})


@pytest.mark.parametrize(("macs_left", "parameters_left"), [(0.5, 0.9), (0.9, 0.5), (0.5, 0.55)])
def test_several_bounds(macs_left: float, parameters_left: float) -> None:
    """Both hold, and the tighter one is not overdone by more than a channel or two."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(8),
        nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3),
    )  # fmt: skip
    network = find_groups(model, torch.randn(2, 3, 8, 8))
    costs = Costs(model, network)
    choices = [range(1, group.units + 1) for group in network.groups]
    hulls = [hull({w: float(np.exp(-w / 5)) for w in every}, every) for every in choices]
    bounds = {"macs": macs_left, "parameters": parameters_left}
    widths = first_within(descend(costs, bounds, hulls, choices), costs, bounds)  # type: ignore[arg-type]
    left = {cost: costs.fraction(cost, widths) for cost in bounds}  # type: ignore[arg-type]
    assert all(left[cost] <= bounds[cost] for cost in bounds)
    tight = max(bounds, key=lambda cost: left[cost] / bounds[cost])
    assert left[tight] > 0.8 * bounds[tight]
    with pytest.raises(ValueError, match="parameters: 1e-06 cannot be met"):
        bounds = {"macs": 0.5, "parameters": 1e-6}
        first_within(descend(costs, bounds, hulls, choices), costs, bounds)  # type: ignore[arg-type]
