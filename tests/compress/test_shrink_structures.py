"""Shrink through residual adds, concatenations, depthwise and grouped convolutions, flattening, pooling, attention."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from shrink_checks import (
    IMAGE,
    Concat,
    Grouped,
    Inverted,
    Residual,
    _one_seeded_thread,  # noqa: F401
    conv,
    set_norms,
    shrink_checked,
    silence,
)
from torch import Tensor, nn
from torch.nn import functional as F

from compress.shrink import shrink


def test_residual_channels_go_when_all_of_their_sources_are_dead() -> None:
    model = Residual()
    set_norms(model, bias=-1.0)
    with torch.no_grad():
        model.norm_stem.running_mean.zero_()
        model.norm_branch.running_mean.zero_()
    silence(model.stem, [1, 2, 3])
    silence(model.branch, [2, 3, 4])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["stem"].kept_outputs == plan.layers["branch"].kept_outputs == (0, 1, 4, 5, 6, 7)
    assert any(note.startswith("stem: 1 zero filter stays") for note in plan.notes)


def test_concatenation_maps_indices_and_leaves_the_input_alone() -> None:
    model = Concat()
    set_norms(model)
    silence(model.left, [0, 3])
    silence(model.right, [1, 5])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["head"].kept_inputs == (1, 2, 4, 5, 6, 7, 8, 10, 11, 12)
    assert plan.channels["norm"].kept == plan.layers["head"].kept_inputs


def test_depthwise_and_squeeze_excite_follow_their_channels() -> None:
    model = Inverted()
    set_norms(model, bias=-2.0)
    with torch.no_grad():
        for norm in model.norms:
            norm.running_mean.zero_()  # type: ignore[operator, union-attr]
            norm.bias[4:] = 1.0  # type: ignore[index]
    silence(model.expand, [0, 2])
    silence(model.depthwise, [2, 3])
    silence(model.squeeze, [1])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["expand"].kept_outputs == plan.layers["depthwise"].kept_outputs == (1, 4, 5, 6, 7)
    assert model.depthwise.groups == 5
    assert plan.layers["squeeze"].kept_outputs == plan.layers["excite"].kept_inputs == (0, 2, 3)
    assert plan.layers["excite"].kept_outputs == (1, 4, 5, 6, 7)


def test_a_constant_that_a_padded_depthwise_bends_at_the_border_stays() -> None:
    model = Inverted()
    set_norms(model, bias=2.0)
    silence(model.expand, [0])
    plan = shrink(model, IMAGE)
    assert "expand" not in plan.layers
    assert any(note.startswith("expand: 1 zero filter stays") for note in plan.notes)


def test_convolution_groups_stay_equal_or_go_as_a_whole() -> None:
    model = Grouped()
    silence(model.grouped, [2, 3])  # group 1 as a whole
    silence(model.first, [0])  # one of two inputs of group 0: cannot go alone
    plan = shrink_checked(model, IMAGE)
    assert (model.grouped.groups, model.grouped.in_channels, model.grouped.out_channels) == (3, 6, 6)
    assert plan.layers["first"].kept_outputs == (0, 1, 4, 5, 6, 7)
    assert any("convolution groups of grouped must stay equal" in note for note in plan.notes)


def test_every_group_loses_one() -> None:
    model = Grouped()
    silence(model.first, [0, 2, 5, 7])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["grouped"].kept_inputs == (1, 3, 4, 6)
    assert (model.grouped.groups, tuple(model.grouped.weight.shape)) == (4, (8, 1, 3, 3))


def test_depthwise_with_a_multiplier() -> None:
    model = Grouped(groups=8, middle=16)
    silence(model.first, [1, 6])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["grouped"].kept_outputs == (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15)
    assert model.grouped.groups == 6


def test_several_inputs_for_one_output_each_is_left_alone() -> None:
    model = Grouped(groups=4, middle=4)
    silence(model.first, [1, 6])
    plan = shrink_checked(model, IMAGE)
    assert "grouped" not in plan.layers


def test_linear_behind_flatten_takes_its_features_along() -> None:
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(36, 5))
    set_norms(model, bias=1.0)
    silence(model[0], [1])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["5"].kept_inputs == (*range(9), *range(18, 36))
    assert not plan.layers["5"].bias_added


def test_constants_that_differ_over_the_flattened_map_are_folded_too() -> None:
    model = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4, groups=4), nn.Flatten(), nn.Linear(324, 5)
    )
    set_norms(model, bias=1.0)
    silence(model[0], [1])  # the depthwise convolution behind turns the constant into a map with a border
    shrink_checked(model, IMAGE)
    assert model[0].out_channels == model[3].groups == 3


@pytest.mark.parametrize(
    ("pool", "goes"),
    [
        (nn.AvgPool2d(3, 1, padding=1), False),
        (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), True),
        (nn.MaxPool2d(3, 1, padding=1), True),
        (nn.AdaptiveAvgPool2d(2), True),
        (nn.Upsample(scale_factor=2, mode="bilinear"), True),
    ],
)
def test_pooling_decides_by_what_it_does_at_the_border(pool: nn.Module, goes: bool) -> None:
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), pool, conv(4, 5, 1, 0))
    set_norms(model, bias=1.0)
    silence(model[0], [1])
    shrink_checked(model, IMAGE)
    assert model[0].out_channels == (3 if goes else 4)


def test_prelu_instance_norm_and_transposed_convolution() -> None:
    model = nn.Sequential(
        conv(3, 6), nn.PReLU(6), nn.ConvTranspose2d(6, 6, 3, stride=2, groups=2), nn.InstanceNorm2d(6, affine=True),
        nn.PReLU(), nn.ConvTranspose2d(6, 3, 2),
    )  # fmt: skip
    silence(model[0], [0, 4])
    with torch.no_grad():
        model[3].bias.normal_()
        ignore_inputs = model[5].weight  # [in, out, k, k]
        ignore_inputs[[1, 5]] = 0
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["0"].kept_outputs == plan.channels["1"].kept == (1, 2, 3, 5)
    assert plan.layers["2"].kept_outputs == plan.channels["3"].kept == (0, 2, 3, 4)
    assert model[2].weight.shape == (4, 2, 3, 3)


def test_constants_merge_under_a_transposed_convolution() -> None:
    model = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, stride=2))
    set_norms(model, bias=1.0)
    silence(model[0], [0, 4])
    plan = shrink_checked(model, IMAGE)
    assert model[0].out_channels == 5
    assert len(plan.layers["3"].merged) == 1


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(dims: int) -> None:
    make, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv3d, nn.BatchNorm3d)
    model = nn.Sequential(make(3, 6, 3), norm(6), nn.ReLU(), make(6, 4, 3))
    set_norms(model)
    silence(model[0], [0, 4])
    shrink_checked(model, torch.randn(2, 3, *[8] * dims))
    assert model[0].out_channels == 4


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))  # type: ignore[no-any-return]


def test_hidden_units_of_a_transformer_go_and_layer_norm_keeps_its_channels() -> None:
    model = nn.Sequential(nn.Linear(6, 8), TransformerBlock())
    silence(model[1].up, [0, 5, 6])
    silence(model[0], [2])
    plan = shrink_checked(model, torch.randn(2, 7, 6))
    assert model[1].up.out_features == 9
    assert model[1].norm.normalized_shape == (8,)
    assert any("0: 1 zero filter stays" in note and "normalises across channels" in note for note in plan.notes)


@pytest.mark.parametrize("layers", [2, 4])
def test_a_dead_network_keeps_one_channel_everywhere(layers: int) -> None:
    model = nn.Sequential(*[nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(layers)], conv(4, 3))
    set_norms(model, bias=0.5)
    for block in model:
        silence(block[0] if isinstance(block, nn.Sequential) else block, range(4 if block is not model[-1] else 1))
    masked = copy.deepcopy(model)
    shrink(model, torch.randn(2, 4, 8, 8))
    assert [block[0].out_channels for block in model[:-1]] == [1] * layers
    x = torch.randn(3, 4, 8, 8)
    assert torch.allclose(masked.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-6)


def test_round_to_keeps_dead_channels() -> None:
    model = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), conv(16, 6))
    silence(model[0], range(7))
    silence(model[2], range(9, 16))
    plan = shrink_checked(model, IMAGE, round_to=4)
    assert (model[0].out_channels, model[2].out_channels, model[4].out_channels) == (12, 12, 6)
    assert any("keeps a multiple of 4" in note for note in plan.notes)


def test_round_to_with_convolution_groups() -> None:
    model = Grouped(groups=2)
    silence(model.first, [0, 4])
    silence(model.grouped, [1, 5, 6])
    shrink_checked(model, IMAGE, round_to=4)
    assert model.first.out_channels % 4 == model.grouped.out_channels % 4 == 0
    assert model.grouped.groups == 2


class OptionAMap(nn.Module):
    """A fixed channel map as the protocol describes it, written the obvious way."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.source = [o - 1 if 1 <= o <= inputs else -1 for o in range(outputs)]

    def select(self, out_keep: Sequence[int], in_keep: Sequence[int]) -> None:
        place = {channel: position for position, channel in enumerate(in_keep)}
        self.source = [place.get(self.source[o], -1) for o in out_keep]
        self.in_channels, self.out_channels = len(in_keep), len(out_keep)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, ::2, ::2]
        return torch.stack([x[:, s] if s >= 0 else torch.zeros_like(x[:, 0]) for s in self.source], 1)


class OptionA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv(3, 4), conv(4, 6, stride=2), conv(6, 3)
        self.shortcut = OptionAMap(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.shortcut(x) + self.branch(x)))  # type: ignore[no-any-return]


def test_fixed_channel_maps_are_cut_on_both_sides() -> None:
    model = OptionA()
    silence(model.stem, [2])
    silence(model.branch, [0, 1, 3])  # 0 reads zeros through the map, 3 reads channel 2, 1 reads a live one
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["shortcut"].kept_inputs == (0, 1, 3)
    assert plan.layers["shortcut"].kept_outputs == (1, 2, 4, 5)
    assert model.shortcut.source == [0, 1, 2, -1]
