"""The target latency and measured rounding, with stopwatches whose answers are known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from method_checks import same
from torch import nn

from compress.greedy.costs import Costs
from compress.greedy.groups import find_groups
from compress.greedy.latency import Latency
from compress.methods import GreedyImitation, create

X = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
DATA = [(X, torch.randint(0, 5, (24,), generator=torch.Generator().manual_seed(1)))]


def chain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


def widths(model: nn.Module) -> list[int]:
    return [model[0].out_features, model[2].out_features]  # type: ignore[index, union-attr, list-item]


def parameters(thinned: nn.Module, whole: nn.Module) -> float:
    counts = [sum(p.numel() for p in model.parameters()) for model in (thinned, whole)]
    return counts[0] / counts[1]


def blocks(size: int) -> Callable[[nn.Module, nn.Module], float]:
    """A runtime that computes `size` channels at a time."""

    def stopwatch(thinned: nn.Module, whole: nn.Module) -> float:
        costs = [np.prod([1 + -(-width // size) for width in widths(model)]) for model in (thinned, whole)]
        return float(costs[0] / costs[1])

    return stopwatch


@pytest.mark.parametrize("target", [0.9, 0.5, 0.2])
def test_the_widest_of_a_path_within_the_target(target: float) -> None:
    model = chain()
    network = find_groups(model, X)
    path = [[64 - step, 64 - step] for step in range(64)]
    latency, costs = Latency(model, network, parameters), Costs(model, network)
    found = latency.widest_within(path, costs, target)
    best = next(widths for widths in path if latency.of(widths) <= target)
    assert latency.of(found) <= target
    assert costs.fraction("macs", found) >= costs.fraction("macs", best) - 0.02


def test_nothing_is_timed_twice_and_the_whole_network_stays() -> None:
    model, calls = chain(), list[list[int]]()
    before = copy.deepcopy(model)

    def stopwatch(thinned: nn.Module, whole: nn.Module) -> float:
        assert same(whole, before)
        calls.append(widths(thinned))
        return parameters(thinned, whole)

    latency = Latency(model, find_groups(model, X), stopwatch)
    assert latency.of([30, 10]) == latency.of((30, 10))
    assert calls == [[30, 10]]


def test_the_target_is_met_by_what_was_measured(tmp_path: Path) -> None:
    model, again, clock = chain(), chain(), list[float]()

    def stopwatch(thinned: nn.Module, whole: nn.Module) -> float:
        return clock[0] if clock else parameters(thinned, whole)

    pruner = GreedyImitation(latency=0.5, imitation="local").timed_by(stopwatch).kept_in(tmp_path)
    pruner.attach(model, DATA)
    assert 0.4 < pruner.run.findings["latency_left"] <= 0.5
    assert parameters(model, chain()) == pytest.approx(pruner.run.findings["latency_left"])
    clock.append(0.3)  # a resumed search keeps the widths, whatever the clock says now
    resumed = GreedyImitation(latency=0.5, imitation="local").kept_in(tmp_path).timed_by(stopwatch)
    resumed.attach(again, DATA)
    assert same(again, model)
    other = GreedyImitation(latency=0.5, imitation="local").kept_in(tmp_path).timed_by(parameters)
    with pytest.raises(ValueError, match=r"folder: .* holds another search"):
        other.attach(chain(), DATA)


@pytest.mark.parametrize(("size", "expected"), [(16, {16, 32}), (1, {1})])
@pytest.mark.parametrize("target", [{"latency": 0.5}, {"macs": 0.5}, {"width": 0.7}], ids=["latency", "macs", "width"])
def test_auto_finds_the_blocks_of_the_runtime(size: int, expected: set[int], target: dict[str, float]) -> None:
    model = chain()
    pruner = GreedyImitation(round_to="auto", imitation="local", **target).timed_by(blocks(size))  # type: ignore[arg-type]
    pruner.attach(model, DATA)
    assert pruner.run.plan is not None
    rounding = max(step for step in (1, 4, 8, 16, 32) if all(width % step == 0 for width in widths(model)))
    assert (rounding in expected) or (expected == {1} and "width" not in target) or target == {"width": 0.7}
    if size == 16:
        assert rounding >= 16
    if "latency" in target:
        assert pruner.run.findings["latency_left"] <= 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency": 0.001}, r"latency: 0\.001 cannot be met; with every group at its narrowest 0\.\d+ of it is left"),
        ({"latency": 0.0}, "latency: 0.0 is not a number above 0, at most 1"),
        ({"macs": 0.5, "round_to": "fast"}, "round_to: 'fast' is not a whole number"),
        ({"loss_gap": 0.1, "round_to": "auto"}, "round_to: auto needs a target that tells widths beforehand: macs,"),
    ],
)
def test_errors(settings: dict[str, object], message: str) -> None:
    model = chain()
    with pytest.raises(ValueError, match=message):
        create("greedy_imitation", **settings).timed_by(parameters).attach(model, DATA)
    assert same(model, chain())


@pytest.mark.parametrize("settings", [{"latency": 0.5}, {"macs": 0.5, "round_to": "auto"}])
def test_without_a_stopwatch(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"latency: networks must be timed, .*timed_by\(stopwatch\)"):
        create("greedy_imitation", **settings).rehearse(chain(), DATA)


def test_rehearsing_measures_what_is_within_reach() -> None:
    with pytest.raises(ValueError, match=r"latency: 0\.5 cannot be met; with every group at its narrowest 0\.9000"):
        GreedyImitation(latency=0.5).timed_by(lambda *_: 0.9).rehearse(chain(), DATA)


def test_other_methods_take_no_notice() -> None:
    pruner = create("one_shot", sparsity=0.5)
    assert pruner.timed_by(parameters) is pruner
