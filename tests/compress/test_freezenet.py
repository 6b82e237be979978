"""FreezeNet against naive training, the generator and SNIP by hand; FreezeNet-WD."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_checks import network
from torch import Tensor, nn
from torch.nn import functional

from compress import dense_weights, fold, sparsity_report
from compress.budget import keep_count
from compress.frozen import frozen_values
from compress.methods import AtInit, FreezeNet
from compress.train import TrainSettings, accuracy, fit
from compress_then_export.data import open_data
from compress_then_export.models import build

Batch = tuple[Tensor, Tensor]
STEPS = 6


def data(count: int = STEPS) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(10, 3, 8, 8, generator=generator), torch.arange(10) % 5) for _ in range(count)]


def initial(model: nn.Module, **settings: Any) -> dict[str, Tensor]:
    """The seed's values of every prunable weight of a plain model."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1}
    return {name: values.tensor() for name, values in frozen_values(settings["seed"], shapes).items()}


def started(seed: int = 3) -> nn.Module:
    """The shared network as FreezeNet starts it, plain."""
    model = network()
    with torch.no_grad():
        for name, values in initial(model, seed=seed).items():
            model.get_parameter(name).copy_(values)
            layer = model.get_submodule(name.removesuffix(".weight"))
            if layer.bias is not None:
                layer.bias.zero_()  # type: ignore[operator,union-attr]
    return model


def snip_by_hand(model: nn.Module, batch: Batch, keep: int) -> dict[str, Tensor]:
    """Masks of the ``keep`` largest |∂L/∂W ⊙ W|, (3.1) and Algorithm 3.1."""
    model.train()
    names = list(initial(model, seed=0))
    weights = [model.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(functional.cross_entropy(model(batch[0]), batch[1]), weights)
    scores = [(g * w).abs() for g, w in zip(gradients, weights, strict=True)]
    threshold = torch.cat([s.flatten() for s in scores]).sort(descending=True).values[keep - 1]
    return {name: score >= threshold for name, score in zip(names, scores, strict=True)}


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, after_backward: Callable[[], None] = lambda: None) -> None:
    model.train()
    for inputs, targets in data():
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        after_backward()
        optimizer.step()


def masks_of(pruner: FreezeNet) -> dict[str, Tensor]:
    return {weight.name: mask for weight, mask in zip(pruner.run.weights, pruner.run.masks(), strict=True)}


def test_attach_replaces_weights_by_the_seed_and_biases_by_zero_whatever_they_were() -> None:
    model = network()
    pruner = FreezeNet(seed=3)
    pruner.attach(model, data())
    found = dense_weights(model)
    expected = initial(network(), seed=3)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    assert all(not model[layer].bias.any() for layer in (3, 6, 8))  # type: ignore[index,union-attr,operator]


def test_trained_positions_are_those_of_snip_by_hand() -> None:
    pruner = FreezeNet(sparsity=0.9, seed=3)
    pruner.attach(network(), data())
    total = sum(mask.numel() for mask in pruner.run.masks())
    expected = snip_by_hand(started(3), data()[0], keep_count(total, 0.9))
    found = masks_of(pruner)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


def test_the_mask_is_that_of_at_init_on_the_same_network() -> None:
    settings: dict[str, Any] = {"sparsity": 0.8, "score": "snip", "control": "grasp", "alpha": 0.9}
    pruner, pruned = FreezeNet(seed=3, **settings), AtInit(score_batches=1, **settings)
    pruner.attach(network(), data())
    pruned.attach(started(3), data())
    assert all(torch.equal(a, b) for a, b in zip(pruner.run.masks(), pruned.run.masks(), strict=True))
    trained = sum(float(mask.sum()) for mask in pruned.run.masks())
    assert pruner.run.findings == {**pruned.run.findings, "trained_weights": trained}


@pytest.mark.parametrize("nesterov", [False, True])
def test_training_equals_dense_training_with_the_gradient_of_frozen_weights_zeroed(nesterov: bool) -> None:
    """Algorithm 3.1, line 5; weight decay on trained weights only, as in section 3.4."""
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 5e-3}
    model, pruner = network(), FreezeNet(sparsity=0.8, seed=3)
    pruner.attach(model, data())
    masks = masks_of(pruner)
    loop(model, torch.optim.SGD(model.parameters(), **settings))
    pruner.finish()
    fold(model)

    naive, frozen = started(3), initial(network(), seed=3)

    def masked() -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                weight = naive.get_parameter(name)
                assert weight.grad is not None
                weight.grad.copy_(torch.where(mask, weight.grad, -settings["weight_decay"] * weight))

    loop(naive, torch.optim.SGD(naive.parameters(), **settings), masked)
    for name, expected in naive.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert torch.equal(weight[~mask], frozen[name][~mask])
        assert int((weight != frozen[name]).sum()) == int(mask.sum())
    assert sparsity_report(model).sparsity == 0
    assert pruner.run.sparsity == 0


def test_weight_decay_equals_dense_training_with_masked_gradient_and_ends_pruned() -> None:
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.5}
    model, pruner = network(), FreezeNet(sparsity=0.8, seed=3, weight_decay=True)
    pruner.attach(model, data())
    masks = masks_of(pruner)
    loop(model, torch.optim.SGD(model.parameters(), **settings))

    naive = started(3)

    def masked() -> None:
        for name, mask in masks.items():
            gradient = naive.get_parameter(name).grad
            assert gradient is not None
            gradient.masked_fill_(~mask, 0.0)

    loop(naive, torch.optim.SGD(naive.parameters(), **settings), masked)
    for name, weight in dense_weights(model).items():
        torch.testing.assert_close(weight, naive.get_parameter(name).detach(), rtol=1e-4, atol=1e-6)
    assert pruner.run.sparsity == 0

    untrained = sum(float((naive.get_parameter(name).detach()[~mask] ** 2).sum()) for name, mask in masks.items())
    everything = sum(float((naive.get_parameter(name).detach() ** 2).sum()) for name in masks)
    pruner.finish()
    assert pruner.run.findings["untrained_norm_share"] == pytest.approx(untrained / everything, rel=1e-4)
    assert pruner.run.sparsity == pytest.approx(0.8, abs=1e-3)
    attached = sparsity_report(model)
    assert sparsity_report(fold(model)) == attached
    for name, mask in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
    assert not pruner.run.frozen


@pytest.mark.parametrize(("factor", "warned"), [(1.0, True), (0.01, False)])
def test_weight_decay_warns_only_while_untrained_weights_still_matter(
    factor: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, pruner = network(), FreezeNet(sparsity=0.5, weight_decay=True)
    pruner.attach(model, data())
    with torch.no_grad():
        for weight, mask in zip(pruner.run.weights, pruner.run.masks(), strict=True):
            pruner.run.coefficients(weight).mul_(torch.where(mask, 1.0, factor))
    pruner.finish()
    assert (0.01 < pruner.run.findings["untrained_norm_share"] < 1) is warned
    assert bool(pruner.run.warnings) is warned
    assert ("still held" in caplog.text) is warned


def test_a_state_taken_after_finish_is_pruned_though_loaded_into_a_run_that_is_not() -> None:
    model, pruner = network(), FreezeNet(sparsity=0.8, weight_decay=True)
    pruner.attach(model, data())
    pruner.finish()
    other, again = network(), FreezeNet(sparsity=0.8, weight_decay=True)
    again.attach(other, data())
    other.load_state_dict(model.state_dict())
    again.load_state_dict(pruner.state_dict())
    assert again.run.sparsity == pruner.run.sparsity == pytest.approx(0.8, abs=1e-3)
    assert sparsity_report(other) == sparsity_report(model)
    assert again.run.warnings == pruner.run.warnings
    assert "still held" in again.run.warnings[0]
    old = {key: value for key, value in pruner.state_dict().items() if key != "warnings"}
    again.load_state_dict(old)
    assert again.run.warnings == []
    again.finish()
    expected, found = fold(model).state_dict(), fold(other).state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert sparsity_report(other).sparsity == pytest.approx(0.8, abs=1e-3)


def test_a_run_goes_on_though_another_process_scored_other_batches() -> None:
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3}
    pruners = FreezeNet(sparsity=0.8, seed=3), FreezeNet(sparsity=0.8, seed=3)
    models = network(), network()
    for model, pruner, batches in zip(models, pruners, (data(), data()[1:]), strict=True):
        pruner.attach(model, batches)
    counts = [[p.numel() for p in model.parameters()] for model in models]
    assert counts[0] != counts[1]
    optimizers = [torch.optim.SGD(model.parameters(), **settings) for model in models]
    loop(models[0], optimizers[0])
    for source, target in (models, optimizers, pruners):
        target.load_state_dict(copy.deepcopy(source.state_dict()))  # type: ignore[attr-defined]
    for model, optimizer, pruner in zip(models, optimizers, pruners, strict=True):
        loop(model, optimizer)
        pruner.finish()
    assert pruners[0].run.findings == pruners[1].run.findings
    expected, found = (fold(model).state_dict() for model in models)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_reinit_keeps_the_mask_and_draws_weights_from_further_streams() -> None:
    plain, anew = FreezeNet(seed=3), FreezeNet(seed=3, reinit=True)
    models = network(), network()
    plain.attach(models[0], data())
    anew.attach(models[1], data())
    assert all(torch.equal(a, b) for a, b in zip(plain.run.masks(), anew.run.masks(), strict=True))
    weights = [dense_weights(model) for model in models]
    assert all((weights[0][name] == weights[1][name]).float().mean() < 0.1 for name in weights[0])
    streams = [values.stream for run in (plain.run, anew.run) for values in run.frozen.values()]
    assert len(set(streams)) == len(streams)
    assert {values.seed for values in anew.run.frozen.values()} == {3}
    assert all(torch.equal(anew.run.frozen[name].tensor(), weights[1][name]) for name in weights[1])


@pytest.mark.parametrize("initialisation", ["xavier_normal", "kaiming_uniform", "signed_constant"])
def test_every_initialisation_trains(initialisation: str) -> None:
    model, pruner = network(), FreezeNet(sparsity=0.9, initialisation=initialisation)
    pruner.attach(model, data())
    before = dense_weights(model)
    loop(model, torch.optim.SGD(model.parameters(), lr=0.05))
    changed = {name: weight != before[name] for name, weight in dense_weights(model).items()}
    assert all(torch.equal(changed[name], mask) for name, mask in masks_of(pruner).items())
    if initialisation == "signed_constant":
        assert all(len(weight.abs().unique()) == 1 for weight in before.values())


@pytest.mark.parametrize("size", [4, 9, 18])
@pytest.mark.parametrize("initialisation", ["xavier_normal", "kaiming_uniform", "signed_constant"])
def test_kernels_have_the_variance_of_spatial_ones_however_many_filters_span_them(
    size: int, initialisation: str
) -> None:
    """002, Algorithm 5.1, lines 19 and 20: the fans are those of kernels, c_in · K², not c_in · n."""
    torch.manual_seed(0)
    found, plain = (nn.Sequential(nn.Conv2d(16, 64, 3), nn.Flatten(), nn.Linear(256, 5)) for _ in range(2))
    settings: dict[str, Any] = {"score": "magnitude", "sparsity": 1, "initialisation": initialisation, "seed": 5}
    batches = [(torch.randn(4, 16, 4, 4), torch.arange(4))]
    for model, bases in ((found, {"interspace": "fine", "basis": "random", "basis_size": size}), (plain, {})):
        pruner = FreezeNet(**settings, **bases)
        pruner.attach(model, batches)
        fans = 16 * 9 if initialisation == "kaiming_uniform" else (16 + 64) * 9 / 2
        weight = model[0].weight
        assert isinstance(weight, Tensor)
        assert weight.shape == (64, 16, 3, 3)
        assert float(weight.detach().var()) * fans == pytest.approx(
            2 if initialisation == "kaiming_uniform" else 1, rel=0.05
        )
    assert [source.shape for source in pruner.run.frozen.values()] == [(64, 16, 3, 3), (5, 256)]


def test_biases_alone_learn() -> None:
    """q = 1: section 3.4.1.1 reports 56.2 % on MNIST for LeNet-300-100, where chance is 10 %."""
    digits = open_data({"source": "digits"}, input_shape=(1, 28, 28), seed=0)
    torch.manual_seed(0)
    model = build("builtin:lenet300", num_classes=10, in_channels=1)
    loader, test = digits.loader("train", batch_size=60, seed=0), digits.loader("test", batch_size=200)
    pruner = FreezeNet(sparsity=1)
    pruner.attach(model, loader)
    before = dense_weights(model)
    settings = TrainSettings(epochs=8, lr=0.1, weight_decay=5e-4)
    records = fit(model, loader, settings, pruner=pruner, evaluate=lambda trained: accuracy(trained, test))
    pruner.finish()
    assert records[-1].loss < 2.1 < math.log(10) < records[0].loss
    assert records[-1].accuracy is not None
    assert records[-1].accuracy > 0.3
    assert all(torch.equal(before[name], weight) for name, weight in dense_weights(model).items())


@pytest.mark.parametrize(
    ("source", "parameters", "weights"),
    [("builtin:lenet5_caffe", 431_080, 430_500), ("builtin:lenet300", 266_610, 266_200)],
)
def test_parameters_that_an_optimizer_sees(source: str, parameters: int, weights: int) -> None:
    model = build(source, num_classes=10, in_channels=1)
    assert sum(p.numel() for p in model.parameters()) == parameters
    FreezeNet(sparsity=0.99).attach(model, [(torch.randn(8, 1, 28, 28), torch.arange(8))])
    left = keep_count(weights, 0.99) + parameters - weights
    assert sum(p.numel() for p in model.parameters()) == left
    assert sparsity_report(model).parameters == parameters


def test_layers_left_out_keep_their_weights_and_are_trained_whole() -> None:
    model = network()
    kept = model[0].weight.detach().clone()  # type: ignore[index,union-attr,operator]
    pruner = FreezeNet(skip_first=True, skip_last_linear=True)
    pruner.attach(model, data())
    assert torch.equal(model[0].weight, kept)  # type: ignore[index,union-attr,arg-type]
    assert list(pruner.run.frozen) == ["3.weight", "6.weight"]
