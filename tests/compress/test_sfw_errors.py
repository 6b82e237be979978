"""What SFW refuses: settings, sets, tensors and saved states; the optimizer stays as it was."""

from typing import Any

import pytest
import torch
from torch import nn

from compress.frank_wolfe import SFW, FeasibleSet, KSparsePolytope, L1Ball, L2Ball, LInfBall, k_sparse_sets
from compress.frank_wolfe.tensor_sets import Norm


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"lr": -0.1}, "lr: -0.1"),
        ({"lr": float("nan")}, "lr: nan"),
        (
            {"lr": 1.2, "rescale": False},
            r"lr: 1\.2 is not in \[0, 1\]: a longer step than to the vertex leaves the set",
        ),
        ({"momentum": 1.0}, "momentum: 1.0"),
        ({"momentum": "x"}, "momentum: 'x' is not a number"),
        ({"lr": None}, "lr: None is not a number"),
    ],
)
def test_wrong_settings(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SFW([nn.Parameter(torch.zeros(3))], L2Ball(radius=1.0), **settings_)


def test_a_tensor_without_a_set_or_outside_it() -> None:
    tensor = nn.Parameter(torch.full((3,), 2.0))
    with pytest.raises(ValueError, match=r"sets: tensor 0 of group 0, of shape \(3,\), has none"):
        SFW([tensor], {})
    with pytest.raises(ValueError, match=r"starts outside its set, ‖θ‖_∞ = 2 where 1 is the bound; enlarge its radius"):
        SFW([tensor], LInfBall(radius=1.0))
    optimizer = SFW([tensor], LInfBall(radius=2.0))
    with pytest.raises(ValueError, match="has none"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "sets": {}})
    assert len(optimizer.param_groups) == 1


def test_a_scheduler_that_would_leave_the_set_is_stopped() -> None:
    tensor = nn.Parameter(torch.zeros(3))
    optimizer = SFW([tensor], L2Ball(radius=1.0), lr=0.9, rescale=False)
    optimizer.param_groups[0]["lr"] = 1.01
    tensor.grad = torch.ones(3)
    with pytest.raises(ValueError, match=r"lr: 1\.01"):
        optimizer.step()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([L1Ball(radius=1.0)], r"sets: \[L1Ball\(radius=1\.0\)\] is neither a feasible set nor a mapping of tensors"),
        (3.0, r"sets: 3\.0 is neither"),
    ],
)
def test_sets_that_are_none(sets: Any, message: str) -> None:
    tensor = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=message):
        SFW([tensor], sets)
    with pytest.raises(ValueError, match=r"sets: 3\.0 is not a feasible set for tensor 0 of group 0, such as"):
        SFW([tensor], {tensor: 3.0})  # type: ignore[dict-item]


def test_complex_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"params: w is of torch\.complex64; SFW trains real floating-point tensors"):
        SFW([("w", nn.Parameter(torch.zeros(3, dtype=torch.complex64)))], L2Ball(radius=1.0))


def test_weight_decay_of_a_group_is_refused_unless_it_is_none() -> None:
    tensor = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"weight_decay: 0\.1 is not of use to SFW, whose sets bound the weights"):
        SFW([{"params": [tensor], "weight_decay": 0.1}], L2Ball(radius=1.0))
    SFW([{"params": [tensor], "weight_decay": 0.0}], L2Ball(radius=1.0))


@pytest.mark.parametrize("feasible", [KSparsePolytope(k=3, radius=1.0), L1Ball(radius=1.0), LInfBall(radius=1.0)])
def test_empty_tensors_have_nowhere_to_go(feasible: FeasibleSet) -> None:
    tensor = nn.Parameter(torch.empty(0, 3))
    optimizer = SFW([tensor], feasible)
    tensor.grad = torch.empty(0, 3)
    optimizer.step()
    for way in (feasible.project, feasible.scale, feasible.lmo):
        point = way(tensor.detach())
        assert point.shape == (0, 3)


def saved() -> dict[str, Any]:
    return SFW([nn.Parameter(torch.zeros(3))], L2Ball(radius=1.0)).state_dict()


def another_kind(state: dict[str, Any]) -> None:
    state["param_groups"][0]["sets"][0]["kind"] = "l7"


def without_radius(state: dict[str, Any]) -> None:
    del state["param_groups"][0]["sets"][0]["radius"]


def smaller(state: dict[str, Any]) -> None:
    state["param_groups"][0]["sets"][0]["radius"] = 0.5


def twice(state: dict[str, Any]) -> None:
    state["param_groups"] *= 2


def without_sets(state: dict[str, Any]) -> None:
    del state["param_groups"][0]["sets"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_kind, "state_dict: it holds a set of kind 'l7', which is not one of k_sparse, l1, l2, linf, simplex"),
        (without_radius, r"state_dict: \{'kind': 'l2'\} does not describe a set of its kind"),
        (
            smaller,
            "state_dict: tensor 0 of group 0 is outside the set that was saved, ‖θ‖₂ = 0.9 where 0.5 is the bound",
        ),
        (twice, "state_dict: it has 2 parameter groups, this optimizer has 1"),
        (without_sets, "state_dict: it holds no set for some tensor; it was saved by another optimizer"),
    ],
)
def test_a_state_that_does_not_fit_leaves_the_optimizer_as_it_was(change: Any, message: str) -> None:
    tensor = nn.Parameter(torch.tensor([0.9, 0.0, 0.0]))
    optimizer, state = SFW([tensor], L2Ball(radius=1.0), lr=0.3), saved()
    change(state)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["sets"] == [L2Ball(radius=1.0)]
    assert optimizer.param_groups[0]["lr"] == 0.3
    optimizer.load_state_dict(saved())
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"radius": 0.0}, "radius: 0.0"),
        ({"radius": True}, "radius: True"),
        ({"k_fraction": 0.0}, "k_fraction: 0.0"),
        ({"k_fraction": 1.5}, "k_fraction: 1.5"),
        ({"k_minimum": 0}, "k_minimum: 0"),
        ({"norm": "mean"}, "norm: 'mean' is not one of expected, start, shape"),
    ],
)
def test_sets_of_wrong_settings(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_sparse_sets(nn.Linear(6, 24), **settings_)


@pytest.mark.parametrize("norm", ["expected", "start"])
def test_sparse_gradients_are_refused(norm: Norm) -> None:
    layer = nn.Embedding(5, 3, sparse=True)
    optimizer = SFW(layer.parameters(), k_sparse_sets(layer, norm=norm))
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse gradient"):
        optimizer.step()
