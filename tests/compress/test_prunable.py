"""Which weights a method may touch, and the errors when there are none."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compress import prunable_weights, sparsity_report


def identity_prune(module: nn.Module) -> None:
    prune.identity(module, "weight")


def network() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, 8, 3),
            "norm": nn.BatchNorm2d(8),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "hidden": nn.Linear(8, 8),
            "head": nn.Linear(8, 5),
        }
    )


def test_default_is_that_of_dpf() -> None:
    selection = prunable_weights(network())
    assert [w.name for w in selection.weights] == ["stem.weight", "depthwise.weight", "hidden.weight"]
    assert selection.left_out == {"head.weight": "last linear layer"}


def test_options_and_reasons() -> None:
    selection = prunable_weights(
        network(), skip_first=True, skip_depthwise=True, skip_last_linear=False, exclude=("hid*",)
    )
    assert [w.name for w in selection.weights] == ["head.weight"]
    assert selection.left_out == {
        "stem.weight": "first layer",
        "depthwise.weight": "depthwise convolution",
        "hidden.weight": "excluded by 'hid*'",
    }


def test_tied_weights_are_left_alone() -> None:
    model = network()
    model["copy"] = nn.Linear(8, 8)
    model["copy"].weight = model["hidden"].weight
    left_out = prunable_weights(model, skip_last_linear=False).left_out
    assert left_out == {
        "hidden.weight": "shared with another layer",
        "copy.weight": "shared with another layer",
    }


def test_a_layer_tied_to_an_embedding_is_left_alone() -> None:
    model = network()
    model["table"] = nn.Embedding(8, 8)
    model["hidden"].weight = model["table"].weight
    assert prunable_weights(model).left_out["hidden.weight"] == "shared with another layer"
    assert sparsity_report(model).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, identity_prune])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weights_that_are_computed_are_left_alone(wrap: Callable[[nn.Module], object]) -> None:
    model = network()
    wrap(model["hidden"])
    selection = prunable_weights(model)
    assert [w.name for w in selection.weights] == ["stem.weight", "depthwise.weight"]
    assert "already parametrized" in selection.left_out["hidden.weight"] or (
        "make it plain first" in selection.left_out["hidden.weight"]
    )
    assert sparsity_report(model).layers[2].parameters == 64
    assert sparsity_report(model).parameters == sum(p.numel() for p in model.parameters())


def test_lazy_layers_are_named() -> None:
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet.*run one batch"):
        prunable_weights(nn.Sequential(nn.LazyConv2d(4, 3)))


def test_transposed_convolutions_count_filters_on_axis_one() -> None:
    (weight,) = prunable_weights(nn.Sequential(nn.ConvTranspose2d(4, 6, 3))).weights
    assert weight.filter_axis == 1


def test_layers_before_a_batchnorm_are_known() -> None:
    weights = prunable_weights(network(), skip_last_linear=False).weights
    assert {w.name: w.normalised for w in weights} == {
        "stem.weight": True,
        "depthwise.weight": False,
        "hidden.weight": False,
        "head.weight": False,
    }


def test_nothing_to_prune_says_why() -> None:
    with pytest.raises(ValueError, match=r"no weight is left to prune.*last linear layer"):
        prunable_weights(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        prunable_weights(nn.ReLU())


def test_pattern_without_match_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"exclude: 'layer9\.\*' matches no"):
        prunable_weights(network(), exclude=("layer9.*",))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bad: float) -> None:
    model = network()
    with torch.no_grad():
        model["depthwise"].weight[3, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"depthwise\.weight holds NaN or infinite"):
        prunable_weights(model)
