"""Frozen coefficients: the formula, its memory, what a state_dict holds, and how it comes off."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compress import attach, dense_weights, fold, prunable_weights, sparsity_report
from compress.frozen import FrozenValues, frozen_values
from compress.frozen_subspace import FrozenSubspace, freeze
from compress.prunable import PrunableWeight
from compress.scores import magnitude, snip

SHAPES = {"0.weight": (6, 2, 3, 3), "2.weight": (5, 6 * 16)}


def frozen_network(seed: int = 3, share: float = 0.2) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network whose weights are frozen but for a share of them, and its masks."""
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 5))
    weights = prunable_weights(model, skip_last_linear=False).weights
    sources = frozen_values(seed, SHAPES)
    generator = torch.Generator().manual_seed(1)
    masks = {name: torch.rand(shape, generator=generator) < share for name, shape in SHAPES.items()}
    with torch.no_grad():
        for weight in weights:
            weight.module.weight.copy_(sources[weight.name].tensor())  # type: ignore[operator,union-attr]
    attach(weights)
    freeze(weights, masks, sources)
    return model, masks


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = model(torch.ones(2, 2, 6, 6)).square().sum()
    loss.backward()
    optimizer.step()
    return loss


def weights_of(model: nn.Module, plain: nn.Module) -> list[PrunableWeight]:
    weights = prunable_weights(plain, skip_last_linear=False).weights
    return [replace(w, module=model.get_submodule(w.name.removesuffix(".weight"))) for w in weights]


def test_forward_is_the_formula_with_the_frozen_coefficients_inside_the_basis() -> None:
    class Doubling(nn.Module):
        def forward(self, beta: Tensor) -> Tensor:
            return (2 * beta).view(4, 2, 3, 3)

        def coefficients(self, weight: Tensor) -> Tensor:
            return (weight / 2).view(4, 2, 9)

    source = frozen_values(0, {"a": (4, 2, 9)})["a"]
    mask = torch.rand(4, 2, 9) > 0.5
    formula = FrozenSubspace(mask, source, basis=Doubling())
    dense = torch.randn(4, 2, 9)
    beta = formula.right_inverse((2 * dense).view(4, 2, 3, 3))
    assert torch.equal(beta, dense[mask])
    assert torch.equal(formula(beta), (2 * torch.where(mask, dense, source.tensor())).view(4, 2, 3, 3))
    assert torch.equal(formula.mask, mask)


def test_gradient_and_optimizer_state_exist_for_trained_weights_only() -> None:
    model, masks = frozen_network()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    trained = {int(mask.sum()) for mask in masks.values()} | {6, 5}
    assert {p.numel() for p in model.parameters()} == trained
    assert {p.grad.numel() for p in model.parameters() if p.grad is not None} == trained
    assert {t.numel() for kept in optimizer.state.values() for t in kept.values()} == trained | {1}


def test_gradient_is_that_of_the_dense_weight_at_the_trained_positions() -> None:
    model, masks = frozen_network()
    plain = fold(copy.deepcopy(model))
    for each in (model, plain):
        each(torch.ones(2, 2, 6, 6)).square().sum().backward()
    for name, mask in masks.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        expected = plain.get_parameter(name).grad
        assert expected is not None
        assert torch.equal(module.parametrizations.weight.original.grad, expected[mask])  # type: ignore[union-attr]


def test_state_dict_holds_trained_values_positions_and_seed_and_restores_the_network_under_another_seed() -> None:
    model, masks = frozen_network(seed=3)
    step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    trained = sum(int(mask.sum()) for mask in masks.values())
    assert sum(t.numel() for t in state.values() if t.is_floating_point()) == trained + 6 + 5
    other, _ = frozen_network(seed=4)
    other.load_state_dict(state)
    expected, restored = fold(model).state_dict(), fold(other).state_dict()
    assert all(torch.equal(expected[key], restored[key]) for key in expected)


def test_a_state_of_other_counts_is_taken_into_the_same_parameters_and_trains_on() -> None:
    model, masks = frozen_network(share=0.4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    other, others = frozen_network(share=0.1)
    assert all(int(masks[name].sum()) != int(others[name].sum()) for name in masks)
    resumed = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    step(other, resumed)  # leaves gradients of the old shape
    parameters = list(other.parameters())
    twin = copy.deepcopy(other)
    for each, its in ((other, resumed), (twin, torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9))):
        each.load_state_dict(model.state_dict())
        its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True))
    assert all(p.grad is None or p.grad.shape == p.shape for p in other.parameters())
    for each, its in ((model, optimizer), (other, resumed)):
        step(each, its)
    expected, found = fold(model).state_dict(), fold(other).state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not torch.equal(fold(twin).state_dict()["0.weight"], found["0.weight"])  # one step behind


@pytest.mark.parametrize("name", ["0.positions", "original"])
def test_a_state_that_does_not_fit_together_is_refused(name: str) -> None:
    model, _ = frozen_network()
    state = model.state_dict()
    key = f"0.parametrizations.weight.{name}"
    state[key] = state[key][:-1]
    before = dense_weights(model)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state)
    assert all(torch.equal(before[name], weight) for name, weight in dense_weights(model).items())


def test_loading_a_state_brings_back_what_a_cast_has_rounded() -> None:
    model, _ = frozen_network()
    state = copy.deepcopy(model.state_dict())
    before = dense_weights(model)
    model.half().float()
    assert not any(torch.equal(before[name], weight) for name, weight in dense_weights(model).items())
    model.load_state_dict(state)
    assert all(torch.equal(before[name], weight) for name, weight in dense_weights(model).items())


def test_state_of_another_shape_is_refused() -> None:
    source = frozen_values(0, {"a": (4, 3)})["a"]
    formula = FrozenSubspace(torch.ones(4, 3, dtype=torch.bool), source)
    other = FrozenSubspace(torch.ones(3, 4, dtype=torch.bool), frozen_values(0, {"a": (3, 4)})["a"])
    with pytest.raises(ValueError, match=r"state: it was saved for a weight of shape \(3, 4\), not \(4, 3\)"):
        formula.set_extra_state(other.get_extra_state())


def test_fold_leaves_plain_parameters_that_train_on_though_the_last_graph_is_still_there() -> None:
    model, masks = frozen_network()
    loss = step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    keys = ["0.weight", "0.bias", "2.weight", "2.bias"]
    inputs = torch.randn(2, 2, 6, 6)
    before = model(inputs)
    fold(model)
    assert torch.equal(model(inputs), before)
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_parameters()] == keys
    for name, source in frozen_values(3, SHAPES).items():
        assert torch.equal(model.get_parameter(name)[~masks[name]], source.tensor()[~masks[name]])
    step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert bool(torch.isfinite(loss))


def test_report_scores_and_dense_weights_see_the_weight_that_acts() -> None:
    model, _ = frozen_network()
    plain = fold(copy.deepcopy(model))
    assert sparsity_report(model) == sparsity_report(plain)
    assert sparsity_report(model).sparsity == 0
    assert all(torch.equal(tensor, plain.get_parameter(name)) for name, tensor in dense_weights(model).items())
    data = [(torch.randn(4, 2, 6, 6), torch.arange(4))]
    for score in (snip, magnitude):
        one, other = (score(each, weights_of(each, plain), data) for each in (model, plain))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_trained_is_a_parameter_of_no_entries() -> None:
    model, _ = frozen_network(share=0.0)
    before = dense_weights(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    bias = model[0].bias.detach().clone()  # type: ignore[index,union-attr,operator]
    step(model, optimizer)
    assert all(torch.equal(before[name], after) for name, after in dense_weights(model).items())
    assert not torch.equal(model[0].bias, bias)  # type: ignore[index,union-attr,arg-type]


def test_other_precisions() -> None:
    model = nn.Sequential(nn.Linear(8, 4)).double()
    weights = prunable_weights(model, skip_last_linear=False).weights
    source = FrozenValues(seed=1, stream=0, distribution="signed_constant", scale=0.5, shape=(4, 8))
    attach(weights)
    freeze(weights, {"0.weight": torch.arange(8) < 2}, {"0.weight": source})
    model(torch.ones(1, 8, dtype=torch.float64)).sum().backward()
    assert torch.equal(fold(model)[0].weight[:, 2:], source.tensor()[:, 2:].double())  # type: ignore[index,union-attr]
