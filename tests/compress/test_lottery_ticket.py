"""Lottery tickets: what is cut after each training, and that the rest goes back bit by bit."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from method_checks import network
from torch import Tensor, nn

from compress import fold
from compress.budget import keep_count
from compress.methods import LotteryTicket
from compress.train import TrainSettings, fit

Batch = tuple[Tensor, Tensor]


def data(count: int, start: int = 0) -> list[Batch]:
    generators = [torch.Generator().manual_seed(start + number) for number in range(count)]
    return [(torch.randn(8, 3, 8, 8, generator=g), torch.randint(0, 5, (8,), generator=g)) for g in generators]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()


def state(model: nn.Module) -> dict[str, Tensor]:
    """Everything but the masks, copied."""
    return {name: value.clone() for name, value in model.state_dict().items() if not name.endswith(".mask")}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rewind_step", [0, 3])
@pytest.mark.parametrize("distribution", ["global", "layer"])
def test_each_training_ends_with_a_cut_by_magnitude_and_the_weights_of_the_rewind_step(
    rewind_step: int, distribution: Any
) -> None:
    model = network()
    pruner = LotteryTicket(sparsity=0.6, round_steps=5, rewind_step=rewind_step, distribution=distribution)
    pruner.attach(model)
    saved = state(model)
    sizes = [mask.numel() for mask in pruner.run.masks()]
    assert pruner.trainings == 6
    for number in range(1, pruner.trainings + 1):
        optimizer = sgd(model)
        for position, batch in enumerate(data(5, start=10 * number), start=1):
            optimize(model, optimizer, batch)
            trained = state(model)
            alive = [mask.clone() for mask in pruner.run.masks()]
            pruner.step(optimizer)
            if number == 1 and position == rewind_step:
                saved = state(model)
            if position < 5 or number == pruner.trainings:
                assert_same(state(model), trained)
                assert all(torch.equal(a, b) for a, b in zip(pruner.run.masks(), alive, strict=True))
        if number == pruner.trainings:
            break
        assert not optimizer.state
        assert_same(state(model), saved)
        target = 0.6 if number == 5 else 1 - 0.8**number
        betas = [
            trained[weight.name.replace("weight", "parametrizations.weight.original")] for weight in weights(pruner)
        ]
        magnitudes = [torch.where(mask, beta.abs(), -1.0) for mask, beta in zip(alive, betas, strict=True)]
        if distribution == "global":
            order = torch.cat([magnitude.flatten() for magnitude in magnitudes]).sort(descending=True).values
            thresholds = [order[keep_count(sum(sizes), target) - 1]] * len(sizes)
        else:
            thresholds = [
                magnitude.flatten().sort(descending=True).values[keep_count(magnitude.numel(), target) - 1]
                for magnitude in magnitudes
            ]
        for mask, magnitude, threshold in zip(pruner.run.masks(), magnitudes, thresholds, strict=True):
            assert torch.equal(mask, magnitude >= threshold)
        assert pruner.run.sparsity == pytest.approx(target, abs=1e-3)
    pruner.finish()
    assert pruner.run.warnings == []
    fold(model)
    for weight, mask in zip(weights(pruner), pruner.run.masks(), strict=True):
        assert not weight.module.weight[~mask].any()


def weights(pruner: LotteryTicket) -> Any:
    return pruner.run.weights


@pytest.mark.parametrize(
    ("settings", "trainings"),
    [
        ({"sparsity": 0.9}, 12),  # 002, section 2.3.3.1: 11 to find the ticket and a 12th
        ({"sparsity": 0.8}, 9),
        ({"sparsity": 0.36}, 3),  # exactly two
        ({"sparsity": 0.1}, 2),
        ({"sparsity": 0.0}, 1),
        ({"sparsity": 0.75, "round_fraction": 0.5}, 3),
    ],
)
def test_the_number_of_trainings(settings: dict[str, float], trainings: int) -> None:
    assert LotteryTicket(**settings).trainings == trainings  # type: ignore[arg-type]


def test_what_is_cut_stays_cut() -> None:
    model, pruner = network(), LotteryTicket(sparsity=0.7, round_steps=3)
    pruner.attach(model)
    for number in range(pruner.trainings):
        before = [mask.clone() for mask in pruner.run.masks()]
        optimizer = sgd(model)
        for batch in data(3, start=number):
            optimize(model, optimizer, batch)
            pruner.step()
        assert not any(bool((new & ~old).any()) for new, old in zip(pruner.run.masks(), before, strict=True))


class Stream:
    """Batches of an epoch, a function of its number."""

    def __len__(self) -> int:
        return 4

    def epoch(self, number: int) -> Iterator[Batch]:
        return iter(data(4, start=100 * number))


def test_our_loop_measures_a_training_before_its_weights_are_put_back() -> None:
    model, pruner = network(), LotteryTicket(sparsity=0.36, round_steps=8)
    pruner.attach(model)
    start = state(model)
    seen: list[tuple[bool, float]] = []

    def evaluate(measured: nn.Module) -> float:
        now = state(measured)
        seen.append((any(not torch.equal(start[name], now[name]) for name in start), pruner.run.sparsity))
        return 0.5

    for number in range(pruner.trainings):
        records = fit(model, Stream(), TrainSettings(epochs=2, lr=0.05), pruner=pruner, evaluate=evaluate)
        assert pruner.run.step == 8 * (number + 1)
        assert [record.sparsity for record in records] == [sparsity for _, sparsity in seen[-2:]]
        assert (number == 2) == any(not torch.equal(start[name], value) for name, value in state(model).items())
    assert all(trained for trained, _ in seen)
    assert [sparsity for _, sparsity in seen] == pytest.approx([0, 0, 0.2, 0.2, 0.36, 0.36], abs=1e-3)


def test_our_loop_tells_every_step_also_where_rounds_end_within_an_epoch() -> None:
    model, pruner = network(), LotteryTicket(sparsity=0.36, round_steps=5)
    pruner.attach(model)
    fit(model, Stream(), TrainSettings(epochs=4, lr=0.05), pruner=pruner)
    assert pruner.run.step == 16
    assert [record.step for record in pruner.history] == [5, 10]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (7, "cut from 0.1999 to 0.5000 at once"),
        (10, "trained for 0 of 5 steps"),
        (20, "trained for 0 of 5 steps"),
        (22, "trained for 2 of 5 steps"),
    ],
)
def test_trainings_that_are_missing_are_a_warning_and_the_budget_is_met(steps: int, message: str) -> None:
    model, pruner = network(), LotteryTicket(sparsity=0.5, round_steps=5)
    pruner.attach(model)
    optimizer = sgd(model)
    for batch in data(steps):
        optimize(model, optimizer, batch)
        pruner.step()
    trained = state(model)
    pruner.finish()
    assert_same(state(model), trained)
    assert any(message in warning for warning in pruner.run.warnings)
    total = sum(mask.numel() for mask in pruner.run.masks())
    assert sum(int(mask.sum()) for mask in pruner.run.masks()) == keep_count(total, 0.5)


def test_planned_takes_the_length_of_one_training() -> None:
    assert LotteryTicket().planned(1000, [500]).round_steps == 1000
    assert LotteryTicket(round_steps=1000).planned(1000, []).round_steps == 1000
    with pytest.raises(ValueError, match="round_steps: 10 is not the 1000 steps of a training; leave it out"):
        LotteryTicket(round_steps=10).planned(1000, [])
    with pytest.raises(ValueError, match="round_steps: 0 is not the length of a training; give it at least one epoch"):
        LotteryTicket().planned(0, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"structure": "2:4", "sparsity": 0.5}, "structure: '2:4' ends at a sparsity of its own"),
        ({"distribution": "erk"}, "distribution: 'erk' is not one of global, layer"),
        ({"rewind_step": -1}, "rewind_step: -1"),
        ({"round_fraction": 1.0}, r"round_fraction: 1.0 is not a fraction in \(0, 1\)"),
        ({"round_fraction": 0}, "round_fraction: 0"),
        ({"round_fraction": "a fifth"}, "round_fraction: 'a fifth'"),
        ({"round_steps": 0}, "round_steps: 0"),
        ({"round_steps": math.inf}, "round_steps: inf"),
    ],
)
def test_wrong_settings_name_the_argument(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LotteryTicket(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "round_steps: not set"),
        ({"round_steps": 10, "rewind_step": 10}, "rewind_step: 10 is not before the end of a training of 10 steps"),
    ],
)
def test_rounds_that_do_not_fit_leave_the_model_alone(settings: dict[str, int], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        LotteryTicket(**settings).attach(model)  # type: ignore[arg-type]
    assert_same(model.state_dict(), network().state_dict())
