"""Natural sparsity and magnitude histograms against counting by hand."""

import copy

import pytest
import torch
from torch import nn

from compress.natural_sparsity import EDGES, Cut, cut_once, magnitudes, natural_sparsity, one_shot_curve


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def test_a_cut_takes_the_smallest_of_all_weights_and_nothing_else() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    sparse = cut_once(model, 0.75)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    every = torch.cat([model[0].weight.flatten(), model[3].weight.flatten()])
    threshold = every.abs().sort().values[90]  # 120 weights, 90 of them go
    for index in (0, 3):
        expected = torch.where(model[index].weight.abs() >= threshold, model[index].weight, 0.0)
        assert torch.equal(sparse[index].weight, expected)
        assert torch.equal(sparse[index].bias, model[index].bias)


def test_the_curve_measures_every_cut() -> None:
    def nonzero(model: nn.Module) -> float:
        return sum(int((model[index].weight != 0).sum()) for index in (0, 3)) / 120

    curve = one_shot_curve(network(), nonzero, (0.0, 0.25, 0.9))
    assert [(cut.sparsity, cut.accuracy) for cut in curve] == [(0.0, 1.0), (0.25, 0.75), (0.9, pytest.approx(0.1))]


def test_natural_sparsity_is_the_last_cut_before_the_first_damage() -> None:
    measured = [(0.0, 0.90), (0.5, 0.91), (0.8, 0.899), (0.9, 0.85), (0.95, 0.90)]
    curve = [Cut(sparsity=q, accuracy=a) for q, a in measured]
    assert natural_sparsity(curve) == 0.5
    assert natural_sparsity(curve, 0.005) == 0.8
    assert natural_sparsity(curve, 0.05) == 0.95
    for wrong in ([], curve[1:]):
        with pytest.raises(ValueError, match="curve: "):
            natural_sparsity(wrong)


def test_magnitudes_are_shares_of_the_weights() -> None:
    model = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.0] * 30 + [1e-12] * 10 + [-0.02] * 40 + [500.0] * 20).view(10, 10))
    found = magnitudes(model)
    assert found.edges == EDGES
    assert found.zeros == pytest.approx(0.3)
    assert sum(found.shares) == pytest.approx(0.7)
    assert found.shares[0] == pytest.approx(0.1)
    assert found.shares[-1] == pytest.approx(0.2)
    (inner,) = [i for i in range(len(EDGES) - 1) if EDGES[i] <= 0.02 < EDGES[i + 1]]
    assert found.shares[inner] == pytest.approx(0.4)
