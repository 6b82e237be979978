"""Filter bases that cannot be: the setting is named, and the model stays as it was, bit for bit."""

from typing import Any

import pytest
import torch
from method_checks import network, same
from torch import Tensor

from compress.bases import Basis
from compress.methods import AtInit, Method, OneShot


class Fails(Exception):
    """Raised in the middle."""


@pytest.mark.parametrize("basis", ["standard", "random", "fitted"])
@pytest.mark.parametrize("moment", ["score", "registration"])
def test_a_failure_while_attaching_leaves_every_bit_and_gradient(
    basis: Any, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise Fails

    model, before = network(), network()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if moment == "score":
        pruner: Method = AtInit(sparsity=0.5, interspace="coarse", basis=basis)
        monkeypatch.setattr(AtInit, "masks_at", fails)
    else:
        pruner = OneShot(sparsity=0.5, interspace="coarse", basis=basis)
        # Fails at the second layer, when its weight holds coefficients already but nothing is registered.
        forward = Basis.forward

        def second(self: Basis, coefficients: Tensor) -> Tensor:
            if len(coefficients) == 12:
                raise Fails
            return forward(self, coefficients)

        monkeypatch.setattr(Basis, "forward", second)
    with pytest.raises(Fails):
        pruner.attach(model)
    monkeypatch.undo()
    assert same(model, before)
    assert all(parameter.grad is gradients[name] for name, parameter in model.named_parameters())
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    pruner.attach(model, [(torch.randn(4, 3, 8, 8), torch.arange(4))])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interspace": "middle"}, "interspace: 'middle' is not one of"),
        ({"interspace": "fine", "basis": "obn"}, "basis: there is no 'obn'; did you mean 'onb'"),
        ({"interspace": "fine", "basis_size": 0}, "basis_size: 0 is not a whole number, 1 or more"),
        ({"interspace": "fine", "basis_seed": -1}, "basis_seed: -1"),
        ({"interspace": "fine", "large_kernels": 1}, "large_kernels: 1 is not true or false"),
        ({"basis": "onb"}, "basis: 'onb' is not of use without a filter basis; set interspace"),
        ({"basis_size": 5}, "basis_size: 5 is not of use without"),
        ({"large_kernels": True}, "large_kernels: True is not of use without"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneShot(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"basis_size": 5},
            "basis_size: 5 filters are no standard basis of 3x3 kernels, which has 9; take basis random",
        ),
        ({"basis": "onb", "basis_size": 10}, "basis_size: 10 filters are no onb basis"),
        ({"basis": "fitted", "basis_size": 10}, "basis_size: 10 filters cannot be fitted to 3x3 kernels"),
        ({"interspace": "in_99"}, "interspace: 'in_99' fits no layer"),
        ({"exclude": ["0", "3"]}, "interspace: 'fine' fits no layer"),
    ],
)
def test_settings_that_do_not_fit_the_model_leave_it_alone(settings: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        OneShot(**{"interspace": "fine", **settings}).attach(model)
    assert same(model, network())
