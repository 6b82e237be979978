"""The formula: what it computes, which gradient it lets through, and that it leaves without trace."""

import copy

import pytest
import torch
from torch import nn

from compress import attach, dense_weights, fold, prunable_weights, sparsity_report
from compress.subspace import Subspace


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 12),
        nn.Linear(12, 5),
    )


def masked(model: nn.Module, *, straight_through: bool = False) -> dict[str, Subspace]:
    weights = prunable_weights(model).weights
    masks = {w.name: torch.rand(w.module.weight.shape) > 0.7 for w in weights}
    return attach(weights, masks=masks, straight_through=straight_through)


def test_forward_is_the_formula_with_a_basis_and_frozen_values() -> None:
    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(9, 9)).Q)

        def forward(self, beta: torch.Tensor) -> torch.Tensor:
            return (beta.flatten(2) @ self.matrix).view_as(beta)

        def coefficients(self, weight: torch.Tensor) -> torch.Tensor:
            return (weight.flatten(2) @ self.matrix.T).view_as(weight)

    class Frozen(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.full((4, 2, 3, 3), 0.25)

    beta, mask = torch.randn(4, 2, 3, 3), torch.rand(4, 2, 3, 3) > 0.5
    basis = Rotation()
    subspace = Subspace(mask, basis=basis, frozen=Frozen())
    expected = basis(beta * mask + 0.25 * (~mask))
    torch.testing.assert_close(subspace(beta), expected)
    everything = Subspace(torch.ones_like(mask), basis=basis)
    torch.testing.assert_close(everything(everything.right_inverse(beta)), beta)


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradient(straight_through: bool) -> None:
    beta = torch.randn(5, 4, requires_grad=True)
    mask = torch.rand(5, 4) > 0.5
    subspace = Subspace(mask, straight_through=straight_through)
    upstream = torch.randn(5, 4)
    subspace(beta).backward(upstream)
    assert beta.grad is not None
    torch.testing.assert_close(beta.grad, upstream if straight_through else upstream * mask)


def test_feedback_of_removed_filters_is_no_longer_than_the_mean_of_the_living() -> None:
    beta = torch.randn(5, 4, 3, 3, requires_grad=True)
    mask = torch.tensor([1, 0, 1, 0, 1], dtype=torch.bool).view(5, 1, 1, 1)
    upstream = torch.randn(5, 4, 3, 3)
    upstream[1] *= 316  # what BatchNorm makes of a channel without variance
    upstream[3] *= 1e-3
    Subspace(mask, straight_through=True, normalised_axis=0)(beta).backward(upstream)
    norms = upstream.flatten(1).norm(dim=1)
    limit = norms[[0, 2, 4]].mean()
    assert beta.grad is not None
    torch.testing.assert_close(beta.grad[1], upstream[1] * limit / norms[1])
    torch.testing.assert_close(beta.grad[[0, 2, 3, 4]], upstream[[0, 2, 3, 4]])


def test_feedback_is_limited_for_filters_that_lost_every_single_weight_too() -> None:
    beta = torch.randn(4, 3, 2, 2, requires_grad=True)
    mask = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    mask[1] = False
    mask[2, 1:] = False  # a filter with some weights left passes as it is
    upstream = torch.randn(4, 3, 2, 2)
    upstream[1] *= 316
    Subspace(mask, straight_through=True, normalised_axis=0)(beta).backward(upstream)
    norms = upstream.flatten(1).norm(dim=1)
    assert beta.grad is not None
    torch.testing.assert_close(beta.grad[1], upstream[1] * norms[[0, 2, 3]].mean() / norms[1])
    torch.testing.assert_close(beta.grad[[0, 2, 3]], upstream[[0, 2, 3]])


def test_a_layer_that_is_dead_as_a_whole_still_hears() -> None:
    beta = torch.randn(4, 3, requires_grad=True)
    Subspace(torch.zeros(4, 3, dtype=torch.bool), straight_through=True, normalised_axis=0)(beta).backward(
        torch.ones(4, 3)
    )
    assert beta.grad is not None
    torch.testing.assert_close(beta.grad, torch.full((4, 3), 1e-5**0.5))


def test_masked_weights_are_plus_zero_even_for_negative_and_infinite_coefficients() -> None:
    beta = torch.tensor([-1.0, float("inf"), float("nan")])
    for straight_through in (False, True):
        weight = Subspace(torch.zeros(3, dtype=torch.bool), straight_through=straight_through)(beta)
        assert weight.tolist() == [0, 0, 0]
        assert not torch.signbit(weight).any()


@pytest.mark.parametrize("straight_through", [False, True])
def test_fold_equals_unfolded_and_leaves_a_plain_model(straight_through: bool) -> None:
    model = network()
    keys, classes = list(model.state_dict()), [type(m) for m in model.modules()]
    order = [name for name, _ in model.named_parameters()]
    masked(model, straight_through=straight_through)
    x = torch.randn(2, 3, 8, 8)
    model.eval()
    before = model(x)
    assert fold(model) is model
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_parameters()] == order
    assert [type(m) for m in model.modules()] == classes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_fold_keeps_parameter_identity_for_the_optimizer() -> None:
    model = network()
    masked(model)
    parameters = {id(p) for p in model.parameters()}
    fold(model)
    assert {id(p) for p in model.parameters()} == parameters


def test_folding_a_copy_leaves_the_model_attached() -> None:
    model = network()
    masked(model)
    x = torch.randn(2, 3, 8, 8)
    model.eval()
    before = model(x)
    assert torch.equal(fold(copy.deepcopy(model))(x), before)
    assert torch.equal(model(x), before)
    assert torch.equal(fold(model)(x), before)


def test_fold_of_a_plain_model_changes_nothing() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    fold(model)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_state_dict_round_trip_carries_masks() -> None:
    first, second = network(), network()
    masked(first)
    attach(prunable_weights(second).weights)
    second.load_state_dict(first.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(fold(first).state_dict().values(), fold(second).state_dict().values(), strict=True)
    )


def test_dense_weights_survive_the_mask() -> None:
    model = network()
    original = model[0].weight.detach().clone()
    masked(model)
    assert torch.equal(dense_weights(model)["0.weight"], original)


def test_attaching_twice_is_refused_and_changes_nothing() -> None:
    model = network()
    weights = prunable_weights(model).weights
    attach(weights[:1])
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"0\.weight already carries a parametrization; call fold"):
        attach(weights)
    assert list(model.state_dict()) == keys


def test_report_counts_the_same_attached_and_folded() -> None:
    model = network()
    parameters = sum(p.numel() for p in model.parameters())
    masked(model)
    attached = sparsity_report(model)
    folded = sparsity_report(fold(model))
    assert attached == folded
    assert folded.parameters == parameters
    zeros = sum(int((p == 0).sum()) for p in model.parameters())
    assert folded.overall_sparsity == pytest.approx(zeros / parameters)
    assert [layer.name for layer in folded.layers] == ["0.weight", "4.weight", "5.weight"]
