"""SET and RigL: what they drop and grow, against loops that read like Algorithm 1 of RigL."""

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from method_checks import network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compress import prunable_weights
from compress.budget import keep_count
from compress.erk import erk_counts
from compress.methods import SET, AtInit, Method, RigL
from compress.methods.dynamic import Dynamic
from compress.prunable import stored_weight
from compress.sampling import Cycle
from compress.schedules import cosine

Batch = tuple[Tensor, Tensor]
Unit = tuple[int, ...]


def data(count: int, start: int = 0) -> list[Batch]:
    generators = [torch.Generator().manual_seed(start + number) for number in range(count)]
    return [(torch.randn(8, 3, 8, 8, generator=g), torch.randint(0, 5, (8,), generator=g)) for g in generators]


SCORED = data(3, start=100)


def train(
    model: nn.Module, pruner: Dynamic, optimizer: torch.optim.Optimizer, batches: list[Batch], *, told: bool = True
) -> None:
    for inputs, targets in batches:
        optimize(model, optimizer, inputs, targets)
        pruner.step(optimizer if told else None)


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)


def full_masks(pruner: Dynamic) -> list[Tensor]:
    """Masks at the size of the weights, copied."""
    return [
        mask.expand(pruner.run.coefficients(weight).shape).clone()
        for mask, weight in zip(pruner.run.masks(), pruner.run.weights, strict=True)
    ]


def betas(pruner: Dynamic) -> list[Tensor]:
    return [pruner.run.coefficients(weight).clone() for weight in pruner.run.weights]


def dense_gradients(model: nn.Module, pruner: Dynamic, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """Plain autograd on a plain network whose masked weights are 0."""
    plain = network()
    values = model.state_dict()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            attached = name.replace("weight", "parametrizations.weight.original")
            parameter.copy_(values[name] if name in values else values[attached])
        for weight, mask in zip(pruner.run.weights, full_masks(pruner), strict=True):
            plain.get_parameter(weight.name).mul_(mask)
    nn.functional.cross_entropy(plain(inputs), targets).backward()
    gradients = [plain.get_parameter(weight.name).grad for weight in pruner.run.weights]
    assert all(gradient is not None for gradient in gradients)
    return [gradient for gradient in gradients if gradient is not None]


def naive_units(score: Tensor, structure: str) -> dict[Unit, float]:
    """Squared norm of each unit, by a loop over the weights."""
    sums: dict[Unit, float] = defaultdict(float)
    for index in torch.cartesian_prod(*(torch.arange(size) for size in score.shape)).tolist():
        unit = tuple(index)
        if structure == "filters":
            unit = unit[:1]
        if structure == "block:2x3":
            unit = (unit[0] // 2, unit[1] // 3, *unit[2:])
        sums[unit] += float(score[tuple(index)].double()) ** 2
    return sums


def naive_move(mask: Tensor, beta: Tensor, worth: Tensor, structure: str, fraction: float) -> set[Unit]:
    """Living units after: drop the smallest of the living, grow the best of all that were not kept."""
    magnitude, value = naive_units(beta, structure), naive_units(worth, structure)
    living = [unit for unit, inside in naive_units(mask.float(), structure).items() if inside > 0]
    dropped = int(fraction * len(living))
    kept = set(sorted(living, key=lambda unit: magnitude[unit])[dropped:])
    candidates = [unit for unit in magnitude if unit not in kept]
    return kept | set(sorted(candidates, key=lambda unit: -value[unit])[:dropped])


@pytest.mark.parametrize(
    ("sparsity", "drop_fraction", "structure"),
    [(0.8, 0.3, "weights"), (0.2, 0.9, "weights"), (0.5, 0.5, "filters"), (0.6, 0.4, "block:2x3")],
)
def test_rigl_drops_the_smallest_and_grows_the_largest_dense_gradients(
    sparsity: float, drop_fraction: float, structure: str
) -> None:
    model = network()
    pruner = RigL(
        sparsity=sparsity, drop_fraction=drop_fraction, structure=structure, period=3, stop_step=20, skip_first=True
    )
    pruner.attach(model, SCORED)
    optimizer = sgd(model)
    stays = False
    for update in (0, 1):
        train(model, pruner, optimizer, data(2, start=10 * update))
        optimize(model, optimizer, *data(1, start=10 * update + 2)[0])
        masks, before = full_masks(pruner), betas(pruner)
        gradients = dense_gradients(model, pruner, *SCORED[update])
        moments = [optimizer.state[stored_weight(w.module)]["momentum_buffer"].clone() for w in pruner.run.weights]
        fraction = drop_fraction / 2 * (1 + math.cos(math.pi * 3 * (update + 1) / 20))
        expected = [
            naive_move(mask, beta, gradient, structure, fraction)
            for mask, beta, gradient in zip(masks, before, gradients, strict=True)
        ]
        pruner.step(optimizer)
        moved = 0
        for number, weight in enumerate(pruner.run.weights):
            mask, old = full_masks(pruner)[number], masks[number]
            alive = {unit for unit, inside in naive_units(mask.float(), structure).items() if inside > 0}
            assert alive == expected[number]
            both, grown = mask & old, mask & ~old
            moved += int(grown.sum())
            beta, moment = betas(pruner)[number], optimizer.state[stored_weight(weight.module)]["momentum_buffer"]
            assert torch.equal(beta, torch.where(both, before[number], 0.0))
            assert torch.equal(moment[both], moments[number][both])
            assert not moment[grown].any()
            stays |= int((old & mask).sum()) > int(old.sum()) - int(fraction * int(old.sum()))
        assert moved
    assert stays  # some of what was dropped came back at once, values and all


def test_set_drops_the_smallest_and_grows_at_random_but_reproducibly() -> None:
    def after(seed: int, draw: int) -> list[Tensor]:
        torch.manual_seed(draw)
        model, pruner = network(), SET(sparsity=0.8, period=4, stop_step=100, seed=seed)
        pruner.attach(model)
        optimizer = sgd(model)
        train(model, pruner, optimizer, data(3))
        optimize(model, optimizer, *data(1, start=3)[0])
        old, beta = full_masks(pruner), betas(pruner)
        torch.manual_seed(draw)
        pruner.step(optimizer)
        fraction = 0.15 * (1 + math.cos(math.pi * 4 / 100))
        new = full_masks(pruner)
        for mask, before, values in zip(new, old, beta, strict=True):
            dropped = int(fraction * int(before.sum()))
            kept = torch.where(before, values.abs(), -1.0).flatten().topk(int(before.sum()) - dropped).indices
            assert bool(mask.flatten()[kept].all())
            assert int(mask.sum()) == int(before.sum())
        assert any(bool((mask & ~before).any()) for mask, before in zip(new, old, strict=True))
        return new

    first, same, other = after(0, 1), after(0, 2), after(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_set_grows_every_dead_weight_equally_often() -> None:
    """Of 64 weights 32 live, 10 are dropped, 10 of the 42 others grow: dead ones with probability 10 / 42."""
    born, dead = 0, 0
    for seed in range(300):
        model = nn.Sequential(nn.Linear(8, 8))
        pruner = SET(sparsity=0.5, period=1, stop_step=1000, seed=seed, drop_fraction=0.32)
        pruner.attach(model)
        before = full_masks(pruner)[0]
        pruner.step()
        born += int((full_masks(pruner)[0] & ~before).sum())
        dead += int((~before).sum())
    assert born / dead == pytest.approx(10 / 42, abs=0.01)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda **settings: RigL(**settings), "erk"),
        (lambda **settings: SET(**settings), "erk"),
        (lambda **settings: RigL(distribution="layer", **settings), "layer"),
    ],
)
def test_every_layer_keeps_its_number_for_good(make: Any, expected: str) -> None:
    model, pruner = network(), make(sparsity=0.85, period=2, stop_step=9)
    shapes = [weight.module.weight.shape for weight in prunable_weights(model, skip_last_linear=False).weights]
    sizes = [math.prod(shape) for shape in shapes]
    counts = erk_counts(shapes, sizes, 0.85) if expected == "erk" else [keep_count(size, 0.85) for size in sizes]
    pruner.attach(model, SCORED)
    optimizer = sgd(model)
    seen = []
    for batch in data(12):
        seen.append(full_masks(pruner))
        assert [int(mask.sum()) for mask in seen[-1]] == counts
        train(model, pruner, optimizer, [batch])
    changes = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(seen)]
    assert changes == [step in (2, 4, 6, 8) for step in range(1, 12)]
    pruner.finish()
    assert [int(mask.sum()) for mask in full_masks(pruner)] == counts
    lived = [torch.stack(layer).any(0) for layer in zip(*seen, strict=True)]
    assert pruner.run.findings["explored"] == sum(int(mask.sum()) for mask in lived) / sum(sizes)
    assert pruner.run.warnings == []


def test_the_drop_fraction_is_half_a_cosine() -> None:
    values = [cosine(step, length=900, initial=0.3) for step in (0, 300, 450, 600, 900, 1000)]
    assert values == pytest.approx([0.3, 0.225, 0.15, 0.075, 0.0, 0.0])


@pytest.mark.parametrize("optimizer_of", [sgd, lambda model: torch.optim.AdamW(model.parameters(), lr=0.01)])
def test_dead_weights_are_zero_and_stay_so(optimizer_of: Any) -> None:
    model, pruner = network(), RigL(sparsity=0.8, period=3, stop_step=20)
    pruner.attach(model, SCORED)
    optimizer = optimizer_of(model)
    for batch in data(14):
        train(model, pruner, optimizer, [batch])
        for weight, mask, beta in zip(pruner.run.weights, full_masks(pruner), betas(pruner), strict=True):
            assert not beta[~mask].any()
            for value in optimizer.state[stored_weight(weight.module)].values():
                assert value.shape != beta.shape or not value[~mask].any()


def test_without_the_optimizer_momentum_stays_but_what_grows_starts_at_zero() -> None:
    model, pruner = network(), SET(sparsity=0.5, period=2, stop_step=100, drop_fraction=0.5)
    pruner.attach(model)
    optimizer = sgd(model)
    grown = 0
    for batch in data(8):
        before = full_masks(pruner)
        train(model, pruner, optimizer, [batch], told=False)
        for mask, old, beta in zip(full_masks(pruner), before, betas(pruner), strict=True):
            assert not beta[mask & ~old].any()
            grown += int((mask & ~old).sum())
    assert grown


def test_planned_fills_only_what_is_open() -> None:
    assert RigL().planned(1000, [500]).stop_step == 750
    assert SET(stop=0.5).planned(1001, []).stop_step == 500
    assert SET(stop_step=10).planned(1000, []).stop_step == 10


def test_a_mask_that_never_moved_is_a_warning() -> None:
    model, pruner = network(), SET(sparsity=0.8, stop_step=30)
    pruner.attach(model)
    train(model, pruner, sgd(model), data(3))
    pruner.finish()
    assert "the mask never moved" in pruner.run.warnings[0]


@pytest.mark.parametrize("batches", [[], iter([])])
def test_rigl_without_data_leaves_the_model_as_it_was(batches: Any) -> None:
    model = network()
    with pytest.raises(ValueError, match="batches: there are none"):
        RigL(stop_step=10).attach(model, batches)
    before, after = network().state_dict(), model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_batches_that_end_for_good_are_an_error_and_loaders_leave_the_random_state() -> None:
    model, pruner = network(), RigL(stop_step=10, period=1)
    pruner.attach(model, (batch for batch in data(2)))
    pruner.step()
    pruner.step()
    with pytest.raises(ValueError, match=r"batches: .* none are left"):
        pruner.step()
    samples = [(inputs[0], targets[0]) for inputs, targets in data(16)]
    state = torch.get_rng_state()
    pruner = RigL(stop_step=10, period=1)
    pruner.attach(network_at(state), torch.utils.data.DataLoader(samples, batch_size=8, shuffle=True))
    pruner.step()
    assert torch.equal(torch.get_rng_state(), state)


def network_at(state: Tensor) -> nn.Module:
    model = network()
    torch.set_rng_state(state)
    return model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"structure": "2:4", "sparsity": 0.5}, "structure: '2:4' fixes how many live in each group"),
        ({"distribution": "global"}, "distribution: 'global' is not one of erk, layer"),
        ({"period": 0}, "period: 0"),
        ({"drop_fraction": 0.0}, r"drop_fraction: 0.0 is not a fraction in \(0, 1\]"),
        ({"drop_fraction": True}, "drop_fraction: True"),
        ({"stop": 1.5}, "stop: 1.5"),
        ({"stop": "late"}, "stop: 'late'"),
        ({"stop_step": -1}, "stop_step: -1"),
        ({"seed": -1}, "seed: -1"),
    ],
)
@pytest.mark.parametrize("method", [SET, RigL])
def test_wrong_settings_name_the_argument(method: type[Dynamic], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_an_open_stop_is_an_error_on_attach() -> None:
    model = network()
    with pytest.raises(ValueError, match="stop_step: not set"):
        SET().attach(model)
    assert list(model.state_dict()) == list(network().state_dict())


def loader(**settings: Any) -> DataLoader[Any]:
    data = TensorDataset(torch.randn(16, 3, 8, 8), torch.randint(0, 5, (16,)))
    return DataLoader(data, batch_size=4, **settings)


@pytest.mark.parametrize("make", [lambda: AtInit(sparsity=0.5), lambda: RigL(sparsity=0.5, stop_step=10, period=2)])
def test_a_loader_is_read_without_a_trace_in_its_own_or_the_global_random_state(make: Callable[[], Method]) -> None:
    own = torch.Generator().manual_seed(0)
    for batches in (loader(shuffle=True), loader(shuffle=True, generator=own)):
        model, pruner = network(), make()
        before, state = torch.get_rng_state(), own.get_state()
        pruner.attach(model, batches)
        for _ in range(5):
            pruner.step()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(own.get_state(), state)


def test_a_loader_that_serves_one_reader_at_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="batches: a loader with persistent_workers"):
        RigL(sparsity=0.5, stop_step=10).attach(network(), loader(num_workers=1, persistent_workers=True))


def test_the_batch_that_is_read_to_see_whether_there_is_one_is_not_lost() -> None:
    batches = [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1])) for _ in range(3)]
    cycle = Cycle(iter(batches))
    cycle.check()
    assert cycle.taken == 0
    assert all(cycle.take()[0] is inputs for inputs, _ in batches)
