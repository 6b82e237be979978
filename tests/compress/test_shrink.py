"""Shrink: what goes when constants arrive, behind one layer after another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shrink_checks import (
    IMAGE,
    Chain,
    _one_seeded_thread,  # noqa: F401
    conv,
    ignore,
    set_norms,
    shrink_checked,
    silence,
)
from torch import Tensor, nn
from torch.nn import functional as F

from compress.shrink import shrink


@pytest.mark.parametrize("bias", [-1.0, 0.0])
def test_a_zero_filter_behind_which_zero_arrives_goes(bias: float) -> None:
    model = Chain()
    set_norms(model, bias=bias)
    with torch.no_grad():
        model.norm.running_mean.zero_()
    silence(model.first, [1, 4, 7])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["first"].kept_outputs == (0, 2, 3, 5, 6)
    assert plan.layers["second"].constants == plan.layers["second"].merged == ()
    assert (model.first.out_channels, model.norm.num_features, model.second.in_channels) == (5, 5, 5)


def test_constants_under_zero_padding_share_one_representative() -> None:
    model = Chain()
    set_norms(model, bias=2.0)
    silence(model.first, [1, 4, 7])
    plan = shrink_checked(model, IMAGE)
    assert model.first.out_channels == 6  # two of the three constants go, exactly
    assert len(plan.layers["second"].merged) == 2
    assert model.second.bias is None
    assert any("1 zero filter stays" in note and "zero padding" in note for note in plan.notes)


def test_constants_without_padding_go_into_a_new_bias() -> None:
    model = Chain(padding=0)
    set_norms(model, bias=2.0)
    silence(model.first, [1, 4, 7])
    plan = shrink_checked(model, IMAGE)
    assert model.first.out_channels == 5
    assert plan.layers["second"].bias_added
    assert model.second.bias is not None


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_modes_keep_a_constant_constant(mode: str) -> None:
    model = Chain()
    model.second = nn.Conv2d(8, 5, 3, padding=1, padding_mode=mode)
    set_norms(model, bias=2.0)
    silence(model.first, [1, 4])
    shrink_checked(model, IMAGE)
    assert model.first.out_channels == 6


@pytest.mark.parametrize("activation", [F.silu, F.gelu, F.hardswish, torch.sigmoid, lambda x: F.relu6(x) * 2 + 1])
def test_functional_activations_are_measured(activation: Callable[[Tensor], Tensor]) -> None:
    model = Chain(padding=0, activation=activation)
    set_norms(model)
    silence(model.first, [0, 5])
    shrink_checked(model, IMAGE)
    assert model.first.out_channels == 6


def test_a_filter_that_is_only_quiet_on_the_samples_stays() -> None:
    model = Chain()
    set_norms(model, bias=-50.0)
    with torch.no_grad():
        model.norm.bias[3:] = 1.0
    plan = shrink(model, IMAGE)
    assert plan.layers == {}


def test_a_batchnorm_scale_of_zero_makes_its_channel_constant() -> None:
    model = Chain(padding=0)
    set_norms(model, bias=1.0)
    with torch.no_grad():
        model.norm.weight[[2, 6]] = 0
    shrink_checked(model, IMAGE)
    assert model.first.out_channels == 6


def test_unread_channels_go_and_take_their_feeders_along() -> None:
    model = nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 6), nn.ReLU(), conv(6, 4))
    ignore(model[4], [0, 1])
    with torch.no_grad():
        model[2].weight[2:, 5] = 0  # channel 5 of the first feeds rows 0 and 1 only, which nobody reads
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["2"].kept_outputs == (2, 3, 4, 5)
    assert plan.layers["0"].kept_outputs == (0, 1, 2, 3, 4)
