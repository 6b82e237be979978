"""Pruning in the interspace: what methods, scores and folding see once a model has filter bases (002, chapter 5)."""

import copy
from typing import Any

import pytest
import torch
from method_checks import network, same
from torch import Tensor, nn

from compress import fold, prunable_weights, sparsity_report
from compress.bases import Basis
from compress.interspace import Interspace, attached_bases
from compress.methods import DPF, AtInit, FineTune, Method, OneShot, create
from compress.scores import grasp, snip, synflow
from compress.subspace import attach, parametrized_weights


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 5, (8,), generator=generator)


def train(model: nn.Module, pruner: Method, steps: int, lr: float = 0.05) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    for step in range(steps):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        pruner.step()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("one_shot", {}),
        ("dpf", {"ramp_steps": 1}),
        ("at_init", {"score": "snip"}),
        ("at_init", {"score": "grasp"}),
        ("fine_tune", {}),
    ],
)
def test_a_standard_basis_starts_exactly_where_spatial_pruning_does(method: str, settings: dict[str, Any]) -> None:
    models = []
    for interspace in (None, "fine"):
        model, pruner = network(), create(method, interspace=interspace, **settings)
        pruner.attach(model, [batch()])
        models.append(fold(model))
    assert same(*models)


@pytest.mark.parametrize("basis", ["standard", "onb", "fitted"])
@pytest.mark.parametrize("sharing", ["coarse", "medium", "fine", "in_2", "out_3"])
def test_a_trained_model_becomes_an_interspace_one_of_the_same_function(basis: Any, sharing: str) -> None:
    model = network().eval()
    inputs, _ = batch()
    before = model(inputs)
    bases, coefficients = Interspace(sharing=sharing, basis=basis).start(model, prunable_weights(model).weights)
    attach(prunable_weights(model).weights, bases=bases, coefficients=coefficients)
    torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-5)
    fold(model)
    torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-5)


def test_fold_leaves_the_kernels_of_living_coefficients_and_nothing_of_the_others() -> None:
    model, pruner = network(), DPF(sparsity=0.7, ramp_steps=8, period=4, interspace="fine", basis="onb")
    pruner.attach(model)
    train(model, pruner, 20)
    pruner.finish()
    weights = [model[0].weight.detach().clone(), model[3].weight.detach().clone()]
    expected = []
    for _, module, formula in parametrized_weights(model):
        if isinstance(formula.basis, Basis):
            living = module.parametrizations.weight.original.detach() * formula.mask
            expected.append(torch.einsum("oik,kxy->oixy", living, formula.basis.filters[0].detach()))
    fold(model)
    assert torch.equal(model[0].weight, weights[0])
    assert torch.equal(model[3].weight, weights[1])
    for weight, naive in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, naive)


def test_bases_are_trained_along_and_their_sharing_survives_copies_and_files() -> None:
    model, pruner = network(), DPF(sparsity=0.8, ramp_steps=4, interspace="coarse")
    pruner.attach(model)
    assert len([p for p in model.parameters() if p.shape == (1, 9, 3, 3)]) == 1
    train(model, pruner, 3)
    (basis,) = attached_bases(pruner.run.subspaces)
    assert float((basis.filters[0].detach().flatten(1) - torch.eye(9)).abs().max()) > 1e-4
    twin = copy.deepcopy(model)
    other, again = network(), DPF(sparsity=0.8, ramp_steps=4, interspace="coarse", basis="standard")
    again.attach(other)
    other.load_state_dict(model.state_dict())
    for copied in (twin, other):
        filters = {id(f.basis.filters) for _, _, f in parametrized_weights(copied) if isinstance(f.basis, Basis)}
        assert len(filters) == 1
        assert same(fold(copied), fold(copy.deepcopy(model)))


def test_feedback_reaches_masked_coefficients_and_filters_hear_only_living_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3))
    pruner = DPF(sparsity=0.5, ramp_steps=0, interspace="fine", basis="onb")
    pruner.attach(model)
    upstream = torch.randn(4, 2, 3, 3)
    model[0].weight.backward(upstream)
    (_, module, formula) = next(parametrized_weights(model))
    beta = module.parametrizations.weight.original
    assert isinstance(formula.basis, Basis)
    filters = formula.basis.filters
    torch.testing.assert_close(beta.grad, torch.einsum("oixy,kxy->oik", upstream, filters[0].detach()))  # (5.9)
    living = (beta * formula.mask).detach()
    torch.testing.assert_close(filters.grad[0], torch.einsum("oixy,oik->kxy", upstream, living))  # (5.10)


def spanned(basis: str, size: int | None = None) -> tuple[nn.Module, list[Any]]:
    model = network()
    weights = prunable_weights(model).weights
    bases, coefficients = Interspace(sharing="fine", basis=basis, size=size, seed=1).start(model, weights)  # type: ignore[arg-type]
    attach(weights, bases=bases, coefficients=coefficients)
    return model.train(), list(weights)


def betas(model: nn.Module) -> list[nn.Parameter]:
    return [module.parametrizations.weight.original for _, module, _ in parametrized_weights(model)]


def test_snip_and_grasp_score_coefficients_with_the_filters_fixed() -> None:
    model, weights = spanned("random", 6)
    inputs, labels = batch()
    beta = betas(model)
    gradients = torch.autograd.grad(
        nn.functional.cross_entropy(copy_free(model)(inputs), labels), beta, create_graph=True
    )
    for score, g, b in zip(snip(model, weights, [(inputs, labels)]), gradients, beta, strict=True):
        assert score.shape == b.shape
        torch.testing.assert_close(score, (g * b).abs().detach())
    logits = copy_free(model)(inputs) / 200
    gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), beta, create_graph=True)
    products = torch.autograd.grad(sum((g * g.detach()).sum() for g in gradients), beta)
    for score, h, b in zip(grasp(model, weights, [(inputs, labels)]), products, beta, strict=True):
        torch.testing.assert_close(score, (h * b).detach(), rtol=1e-3, atol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def copy_free(model: nn.Module) -> nn.Module:
    """The model in train mode, but BatchNorm statistics stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    return model


def test_synflow_of_coefficients_is_conserved_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 2))
    pruner = AtInit(sparsity=0.0, score="random", interspace="coarse", basis="random", basis_size=5)
    pruner.attach(model)
    totals = [float(score.sum()) for score in synflow(model, pruner.run.weights, [batch()])]
    assert len(totals) == 3
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-9)
    assert totals[0] > 0


def test_findings_count_coefficients_filters_and_what_is_exported() -> None:
    model = network()
    total = sum(p.numel() for p in model.parameters())
    pruner = OneShot(sparsity=0.9, interspace="fine", basis="onb")
    pruner.attach(model)
    pruner.finish()
    found, masks = pruner.run.findings, pruner.run.masks()
    living = sum(int(mask.sum()) for mask in masks)
    prunable = sum(mask.numel() for mask in masks)
    dense = sum(int((p != 0).sum()) for name, p in network().named_parameters() if p.dim() == 1 or name == "8.weight")
    assert found["basis_parameters"] == 2 * 81
    assert found["interspace_sparsity"] == pruner.run.sparsity == 1 - living / prunable
    assert found["interspace_overall_sparsity"] == pytest.approx(1 - (living + 2 * 81 + dense) / total)
    attached = sparsity_report(model)
    folded = sparsity_report(fold(model))
    assert attached == folded
    assert folded.parameters == total
    zeros = sum(layer.parameters - layer.nonzero_parameters for layer in folded.layers[:3])
    assert found["spatial_sparsity"] == pytest.approx(zeros / prunable)
    assert found["spatial_sparsity"] < found["interspace_sparsity"]
    assert any("of the coefficients are zero, but" in warning for warning in pruner.run.warnings)


def test_whole_filters_vanish_in_the_exported_weights_too_and_nothing_is_to_warn_of() -> None:
    model, pruner = network(), OneShot(sparsity=0.5, structure="filters", interspace="fine", basis="onb")
    pruner.attach(model)
    pruner.finish()
    alive = [int((mask.sum(dim=(1, 2)) > 0).sum()) for mask in pruner.run.masks()[:2]]
    fold(model)
    assert [int((model[i].weight.abs().sum(dim=(1, 2, 3)) > 0).sum()) for i in (0, 3)] == alive
    assert pruner.run.findings["spatial_sparsity"] == pytest.approx(pruner.run.findings["interspace_sparsity"])
    assert not pruner.run.warnings


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_theorem_5_3_1_a_trained_basis_is_nearer_with_equal_support(share: float) -> None:
    torch.manual_seed(0)
    dense = torch.randn(16, 8, 3, 3)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(dense)
    pruner = OneShot(sparsity=1 - share, interspace="fine")
    pruner.attach(model)
    (mask,) = pruner.run.masks()
    largest = dense.abs().flatten().topk(int(mask.sum())).indices
    assert set(mask.flatten().nonzero().flatten().tolist()) == set(largest.tolist())
    standard = float((dense - model[0].weight.detach()).norm())
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        distance = ((dense - model[0].weight) ** 2).sum()
        distance.backward()
        return distance

    optimizer.step(closure)
    assert float((dense - model[0].weight.detach()).norm()) < standard - 1e-3
    assert torch.equal(pruner.run.masks()[0], mask)


def test_a_fitted_basis_loses_less_of_smooth_kernels_than_pruning_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(16, 8, 2, generator=generator) @ torch.randn(2, 9, generator=generator)
    lost = {}
    for basis, interspace in (("standard", None), ("fitted", "fine")):
        model = nn.Sequential(nn.Conv2d(8, 16, 3))
        with torch.no_grad():
            model[0].weight.copy_(smooth.view(16, 8, 3, 3))
        OneShot(sparsity=0.7, interspace=interspace, basis=basis).attach(model)
        lost[basis] = float((model[0].weight.detach() - smooth.view(16, 8, 3, 3)).norm() / smooth.norm())
    assert lost["fitted"] < 1e-5  # two of nine coefficients tell everything
    assert lost["standard"] > 0.1


def test_random_bases_start_layers_anew_by_their_own_seed_and_say_so() -> None:
    models = []
    for seed in (0, 0, 1):
        model, pruner = network(), OneShot(sparsity=0.5, interspace="fine", basis="random", basis_seed=seed)
        state = torch.get_rng_state()
        pruner.attach(model)
        assert torch.equal(torch.get_rng_state(), state)
        assert "what 2 layers had learned is gone" in pruner.run.warnings[0]
        models.append(fold(model))
    assert same(models[0], models[1])
    assert not torch.equal(models[0][0].weight, models[2][0].weight)


def test_gradients_of_another_shape_are_dropped_on_the_way_in_and_out() -> None:
    model, pruner = network(), OneShot(sparsity=0.5, interspace="fine", basis="fitted", basis_size=4)
    nn.functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    assert model[0].weight.grad is not None
    pruner.attach(model)
    train(model, pruner, 1)
    pruner.finish()
    fold(model)
    assert model[0].weight.grad is None
    later = FineTune()
    later.attach(model)
    train(model, later, 1)


def test_grouped_and_depthwise_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, (1, 3), groups=8), nn.Conv2d(8, 4, 1)).double()
    inputs = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    before = model(inputs)
    for sharing in ("coarse", "in_1", "out_2"):
        weights = prunable_weights(model).weights
        bases, coefficients = Interspace(sharing=sharing, basis="onb").start(model, weights)
        attach(weights, bases=bases, coefficients=coefficients)
        assert set(bases) == {"0.weight", "1.weight"}
        torch.testing.assert_close(model(inputs), before)
        fold(model)
