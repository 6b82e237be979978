"""The method frank_wolfe: in the user's own loop, in ours, cut to any sparsity afterwards, and wrong settings."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from method_checks import batch, network, same
from torch import Tensor, nn

from compress import fold, sparsity_report
from compress.frank_wolfe import SFW, DynamicLR, KSparsePolytope, k_sparse_sets
from compress.methods import FrankWolfe, OneShot, create
from compress.train import TrainSettings, fit


class Blobs:
    """Ten-dimensional blobs, one for each of 4 classes."""

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(number)
        for _ in range(len(self)):
            labels = torch.randint(0, 4, (32,), generator=generator)
            yield 3 * torch.eye(10)[labels] + torch.randn(32, 10, generator=generator), labels


def perceptron() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(10, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))


def test_own_loop_keeps_every_tensor_in_its_polytope_to_the_end() -> None:
    model, data = perceptron(), Blobs()
    expected = k_sparse_sets(model, radius=6, k_fraction=0.1)
    radii = sorted((feasible.radius, feasible.k) for feasible in expected.values())
    pruner = FrankWolfe(radius=6, k_fraction=0.1, init_iterations=4)
    pruner.attach(model, data)
    optimizer = pruner.own_optimizer()
    schedule = pruner.own_schedule(optimizer, 6)
    assert isinstance(optimizer, SFW)
    assert isinstance(schedule, DynamicLR)
    pairs = [(p, s) for g in optimizer.param_groups for p, s in zip(g["params"], g["sets"], strict=True)]
    assert sorted((s.radius, s.k) for _, s in pairs) == radii
    losses = []
    for epoch in range(6):
        total = 0.0
        for inputs, labels in data.epoch(epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            pruner.step(optimizer)
            total += loss.item()
            assert all(feasible.outside(tensor.detach()) is None for tensor, feasible in pairs)
        schedule.step(total / len(data))
        losses.append(total / len(data))
    pruner.finish()
    fold(model)
    assert losses[-1] < losses[0] / 2
    assert pruner.run.findings["sfw_init_last_loss"] > 0
    assert sparsity_report(model).sparsity < 0.01  # small, not zero
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_our_loop_uses_its_optimizer_and_schedule_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def start() -> tuple[nn.Module, FrankWolfe]:
        model, pruner = perceptron(), FrankWolfe(init_iterations=3)
        pruner.attach(model, Blobs())
        return model, pruner

    class Stops(Blobs):
        def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
            if number == 11:
                raise KeyboardInterrupt
            return super().epoch(number)

    settings = TrainSettings(epochs=13, lr=1e9)  # of no influence: the method brings its own
    whole, pruner = start()
    records = fit(whole, Blobs(), settings, pruner=pruner)
    rates = [1.0] * 4 + [0.1] * 4 + [0.01] * 5
    rates[10:] = [0.01 * 1.06] * 3
    assert [record.lr for record in records] == pytest.approx(rates)
    file = tmp_path / "stage.ckpt"
    model, pruner = start()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Stops(), settings, pruner=pruner, checkpoint=file)
    model, pruner = start()
    resumed = fit(model, Blobs(), settings, pruner=pruner, checkpoint=file)
    assert [(r.loss, r.lr) for r in resumed] == [(r.loss, r.lr) for r in records]
    assert same(fold(whole), fold(model))
    assert "sfw_init_last_loss" in pruner.run.findings


def test_it_can_be_cut_to_any_sparsity_where_gradient_descent_cannot() -> None:
    """Figure 1b in small: accuracy left after one-shot cuts without retraining."""

    def accuracies(model: nn.Module) -> list[float]:
        found = []
        inputs, labels = map(torch.cat, zip(*Blobs().epoch(1000), strict=True))
        for sparsity in (0.0, 0.95):
            sparse, cutter = copy.deepcopy(model), OneShot(sparsity=sparsity, skip_last_linear=False)
            cutter.attach(sparse)
            cutter.finish()
            fold(sparse).eval()
            found.append(float((sparse(inputs).argmax(1) == labels).float().mean()))
        return found

    settings = TrainSettings(epochs=9, lr=0.1, weight_decay=0.0)
    plain, polytope, pruner = perceptron(), perceptron(), FrankWolfe(dynamic=False)
    fit(plain, Blobs(), settings)
    pruner.attach(polytope, Blobs())
    fit(polytope, Blobs(), settings, pruner=pruner)
    pruner.finish()
    fold(polytope)
    (whole, cut), (whole_sgd, cut_sgd) = accuracies(polytope), accuracies(plain)
    assert whole >= whole_sgd - 0.03
    assert cut >= whole - 0.05
    assert cut > cut_sgd + 0.1


def test_the_published_radii_shrink_batchnorm_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    model = perceptron()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ValueError,
        match=r"radius: with 15 and k_fraction 0\.05 1\.weight starts outside its polytope, ‖θ‖₁ = 64 where",
    ):
        FrankWolfe(norm="shape").attach(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    pruner = FrankWolfe(norm="shape", outside="scale")
    pruner.attach(model)
    assert "1 of 6 tensors started outside" in caplog.text
    torch.testing.assert_close(model[1].weight.detach(), torch.full((64,), 0.741), rtol=0, atol=5e-4)
    assert torch.equal(fold(model)[0].weight, before["0.weight"])


@pytest.mark.parametrize("outside", ["scale", "project"])
def test_a_start_outside_is_moved_in_the_way_that_is_asked_for(outside: Any) -> None:
    model, reference = network(), network()
    FrankWolfe(radius=2.0, outside=outside).attach(model)
    sets = k_sparse_sets(reference, radius=2.0)
    expected = [getattr(sets[tensor], outside)(tensor.detach()) for tensor in reference.parameters()]
    assert any(sets[tensor].outside(tensor.detach()) for tensor in reference.parameters())
    for tensor, inside in zip(fold(model).parameters(), expected, strict=True):
        torch.testing.assert_close(tensor.detach(), inside)


def test_frozen_parameters_stay_out() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    pruner = FrankWolfe()
    pruner.attach(model)
    optimizer = pruner.own_optimizer()
    inputs, labels = batch(0)
    nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    assert torch.equal(fold(model)[0].weight, before)
    assert all(isinstance(feasible, KSparsePolytope) for feasible in optimizer.param_groups[0]["sets"])


def test_another_optimizer_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model, pruner = network(), FrankWolfe()
    pruner.attach(model)
    for optimizer in (pruner.own_optimizer(), torch.optim.SGD(model.parameters(), lr=0.1)):
        for step in range(2):
            assert not pruner.run.warnings
            inputs, labels = batch(step)
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            if step or isinstance(optimizer, SFW):
                pruner.step(optimizer)
    pruner.step(optimizer)
    assert caplog.text.count("frank_wolfe: SGD leaves the polytopes; step with own_optimizer()") == 1
    assert len(pruner.run.warnings) == 1


def test_no_optimizer_where_there_is_nothing_to_train() -> None:
    model, pruner = network(), FrankWolfe()
    pruner.attach(model)
    pruner.finish()
    with pytest.raises(ValueError, match=r"frank_wolfe: finish\(\) was called"):
        pruner.own_optimizer()
    with pytest.raises(ValueError, match="model: no parameter has requires_grad, there is nothing to train"):
        FrankWolfe().attach(network().requires_grad_(False))
    with pytest.raises(ValueError, match=r"train\.epochs: there is no step, and frank_wolfe does nothing but train"):
        FrankWolfe().planned(0, [])


def test_the_way_out_is_not_the_one_that_was_taken() -> None:
    with pytest.raises(ValueError, match="or set norm: start, or outside: scale"):
        FrankWolfe(radius=0.5).attach(network())
    with pytest.raises(ValueError, match="or set outside: scale"):
        FrankWolfe(radius=0.5, norm="start").attach(network())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": -1}, "radius: -1 is not a positive number"),
        ({"radius": float("inf")}, "radius: inf"),
        ({"k_fraction": 0}, "k_fraction: 0"),
        ({"k_fraction": 1.01}, "k_fraction: 1.01 is not a share"),
        ({"k_minimum": 0}, "k_minimum: 0"),
        ({"lr": 0}, "lr: 0 is not a positive"),
        ({"momentum": 1}, "momentum: 1"),
        ({"norm": "mean"}, "norm: 'mean' is not one of"),
        ({"outside": "clip"}, "outside: 'clip' is not one of error, scale, project"),
        ({"init_iterations": 1.5}, "init_iterations: 1.5"),
        ({"dynamic": 1}, "dynamic: 1 is not true or false"),
        ({"exclude": ["fc"]}, r"exclude: \('fc',\) is not of use to frank_wolfe, which cuts nothing"),
        ({"skip_last_linear": False}, "skip_last_linear: False is not of use"),
        ({"interspace": "fine"}, "interspace: 'fine' is not of use"),
        ({"sparsity": 0.9}, "sparsity: frank_wolfe has no such setting"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create("frank_wolfe", **settings)
