"""One tiny network per structure, hand-made dead channels, exact expectations; the masked network is the oracle."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from compress.shrink import ShrinkPlan, apply_plan, shrink
from compress.shrink.channels import trace_channels
from compress.shrink.constants import measure_constants


def conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bool(settings.pop("bias", False)), **settings)  # type: ignore[arg-type]


def silence(layer: nn.Module, rows: Sequence[int]) -> None:
    """Zero whole filters, as a user's own filter pruning does: weight and conv bias, not the BatchNorm behind."""
    with torch.no_grad():
        layer.weight[list(rows)] = 0  # type: ignore[index]
        if layer.bias is not None:
            layer.bias[list(rows)] = 0  # type: ignore[index]


def ignore(layer: nn.Module, columns: Sequence[int]) -> None:
    """Zero what a layer reads from these channels, as unstructured pruning may."""
    with torch.no_grad():
        layer.weight[:, list(columns)] = 0  # type: ignore[index]


def set_norms(model: nn.Module, *, bias: float | None = None) -> None:
    """Statistics and parameters as after training; a given bias for all, else random ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.5, generator=generator)
                if bias is not None:
                    norm.bias.fill_(bias)


def assert_same(masked: nn.Module, shrunk: nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad():
        expected, found = masked.eval()(*inputs), shrunk.eval()(*inputs)
    assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert expected.std() > 1e-6, "the outputs do not depend on anything, the comparison is void"


def shrink_checked(model: nn.Module, x: Tensor, **settings: int) -> ShrinkPlan:
    """Shrink, compare with the masked model, and replay the plan through JSON on another copy of it."""
    masked, replayed = copy.deepcopy(model), copy.deepcopy(model)
    plan = shrink(model, x, **settings)
    assert_same(masked, model, torch.randn_like(x) * 2)
    apply_plan(replayed, ShrinkPlan.from_json(plan.to_json()))
    for (name, a), (other, b) in zip(model.state_dict().items(), replayed.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    return plan


@pytest.fixture(autouse=True)
def _one_seeded_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors only lose by more
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))


class Chain(nn.Module):
    def __init__(self, *, padding: int = 1, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.first, self.norm = conv(3, 8), nn.BatchNorm2d(8)
        self.second = conv(8, 5, padding=padding)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.norm(self.first(x))))  # type: ignore[no-any-return]


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
    assert any("1 zero filters stay" in note and "zero padding" in note for note in plan.notes)


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


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv(3, 8), conv(8, 8), conv(8, 4, 1, 0)
        self.norm_stem, self.norm_branch = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_stem(self.stem(x)))
        return self.head(F.relu(x + self.norm_branch(self.branch(x))))  # type: ignore[no-any-return]


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
    assert any(note.startswith("stem: 1 zero filters stay") for note in plan.notes)


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(3, 5), conv(3, 6)
        self.norm, self.head = nn.BatchNorm2d(14), conv(14, 4, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), x, self.right(x)], 1)
        return self.head(F.relu(self.norm(x)))  # type: ignore[no-any-return]


def test_concatenation_maps_indices_and_leaves_the_input_alone() -> None:
    model = Concat()
    set_norms(model)
    silence(model.left, [0, 3])
    silence(model.right, [1, 5])
    plan = shrink_checked(model, IMAGE)
    assert plan.layers["head"].kept_inputs == (1, 2, 4, 5, 6, 7, 8, 10, 11, 12)
    assert plan.channels["norm"].kept == plan.layers["head"].kept_inputs


class Inverted(nn.Module):
    """Expand, depthwise, squeeze-excite, project: the block of MobileNets and EfficientNets."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = conv(3, 8, 1, 0), conv(8, 8, groups=8), conv(8, 4, 1, 0)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.squeeze, self.excite = conv(8, 4, 1, 0, bias=True), conv(4, 8, 1, 0, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norms[0](self.expand(x)))
        x = F.relu6(self.norms[1](self.depthwise(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.project(x * gate)  # type: ignore[no-any-return]


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
    assert any(note.startswith("expand: 1 zero filters stay") for note in plan.notes)


class Grouped(nn.Module):
    def __init__(self, groups: int = 4, middle: int = 8) -> None:
        super().__init__()
        self.first, self.grouped, self.last = conv(3, 8), conv(8, middle, groups=groups), conv(middle, 3, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.grouped(F.relu(self.first(x)))))  # type: ignore[no-any-return]


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
    assert any("0: 1 zero filters stay" in note and "normalises across channels" in note for note in plan.notes)


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


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = conv(3, 6), conv(6, 6), conv(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.shared(F.relu(self.shared(x)))))  # type: ignore[no-any-return]


def test_a_module_called_twice_stays_right() -> None:
    model = Twice()
    silence(model.stem, [1, 2])
    silence(model.shared, [2])
    shrink_checked(model, IMAGE)
    assert model.stem.out_channels == 5


def test_tied_parameters_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    silence(model[0], [1])
    plan = shrink_checked(model, torch.randn(4, 6))
    assert model[2].weight is model[0].weight
    assert any("share a parameter" in note for note in plan.notes)


class Hidden(nn.Module):
    """Uses channels in a way that no dependency graph sees; the other half of the model is ordinary."""

    def __init__(self, use: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(3, 6), conv(6, 6), conv(6, 4)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.third(F.relu(self.second(self.use(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x * torch.softmax(x.mean((2, 3), keepdim=True), 1),
        lambda x: F.local_response_norm(x, 3),
        lambda x: x.roll(1, 1),
        lambda x: x + torch.arange(6.0, dtype=x.dtype).reshape(1, 6, 1, 1),
        lambda x: x.reshape(2, 2, 3, 9, 9).transpose(1, 2).reshape(2, 6, 9, 9) if x.shape[0] == 2 else x,
    ],
    ids=["mean", "softmax", "lrn", "roll", "constant", "shuffle"],
)
def test_a_guilty_part_is_found_and_left_out(use: Callable[[Tensor], Tensor]) -> None:
    model = Hidden(use)
    silence(model.first, [1, 4])
    silence(model.second, [0, 3])
    masked = copy.deepcopy(model)
    shrink(model, IMAGE)
    assert_same(masked, model, IMAGE)
    assert model.second.out_channels == 4


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)  # a zero does not stay zero
        return self._conv_forward(x, weight, None)


def test_a_layer_with_its_own_forward_is_not_trusted() -> None:
    model = nn.Sequential(
        conv(3, 6), nn.ReLU(), StandardisedConv(6, 5, 3), nn.ReLU(), conv(5, 5), nn.ReLU(), conv(5, 2)
    )
    ignore(model[2], [1])
    silence(model[4], [2])
    plan = shrink_checked(model, IMAGE)
    assert model[0].out_channels == 6
    assert model[4].out_channels == 4
    assert any("0: 1 dead channels stay: without them" in note for note in plan.notes)


class Returns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 6), conv(6, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.first(x)
        return {"out": self.second(F.relu(x)), "features": x}


def test_what_the_model_returns_stays() -> None:
    model = Returns()
    silence(model.first, [1])
    silence(model.second, [2])
    ignore(model.second, [3])
    plan = shrink(model, IMAGE)
    assert plan.layers == {}
    assert sum("reaches the model's output" in note for note in plan.notes) == 2


def test_an_input_added_to_the_result_stays() -> None:
    class AddsInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(3, 3), conv(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x) + x)  # type: ignore[no-any-return]

    model = AddsInput()
    silence(model.first, [1])
    ignore(model.second, [0])
    shrink_checked(model, IMAGE)
    assert model.first.out_channels == 3


def test_a_model_that_the_graph_cannot_follow_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("compress.shrink.search.trace_channels", broken)
    model = Chain()
    silence(model.first, [1])
    before = copy.deepcopy(model.state_dict())
    plan = shrink(model, IMAGE)
    assert plan.layers == {}
    assert "ZeroDivisionError: by zero" in plan.notes[0]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_a_fixed_batch_size_still_loses_unread_channels() -> None:
    class FixedBatch(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(2, 3, 9, 9))

    model = FixedBatch()
    ignore(model.second, [5])
    plan = shrink_checked(model, IMAGE)
    assert model.first.out_channels == 7
    assert any("constant channels stay" in note for note in plan.notes)


def test_several_inputs_and_integer_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lift, self.head = nn.Embedding(10, 6), nn.Linear(4, 6), nn.Linear(6, 3)
            self.inner = nn.Linear(6, 6)

        def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
            return self.head(F.relu(self.inner(self.embed(tokens) + self.lift(x))))  # type: ignore[no-any-return]

    model = Two()
    silence(model.inner, [0, 1])
    masked = copy.deepcopy(model)
    inputs = torch.randint(0, 10, (5,)), torch.randn(5, 4)
    plan = shrink(model, inputs)
    assert plan.layers["inner"].kept_outputs == (2, 3, 4, 5)
    assert_same(masked, model, *inputs)


def test_everything_around_the_weights_is_left_as_it_was() -> None:
    model = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), conv(6, 4, bias=True))
    set_norms(model)
    silence(model[0], [1, 2])
    model.train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    model(IMAGE).sum().backward()
    model[0].register_forward_hook(lambda *_: None)
    modes = [module.training for module in model.modules()]
    state, x = torch.get_rng_state(), IMAGE.clone()
    shrink(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, IMAGE)
    assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == [0, 1, 0, 0, 0, 0]
    assert not any(len(module._forward_pre_hooks) for module in model.modules())
    assert all("forward" not in vars(module) for module in model.modules())
    assert [p.requires_grad for p in model[4].parameters()] == [False, True]
    assert model[0].weight.requires_grad
    assert model[0].weight.grad is None
    assert model[1].num_batches_tracked == 0


def test_it_works_inside_no_grad_and_inference_mode_and_with_frozen_parameters() -> None:
    for context in (torch.no_grad(), torch.inference_mode()):
        model = Chain().requires_grad_(False)
        silence(model.first, [1, 2])
        set_norms(model, bias=-1.0)
        masked = copy.deepcopy(model)
        with context:
            shrink(model, IMAGE)
        assert model.first.out_channels < 8
        assert not any(p.requires_grad for p in model.parameters())
        assert_same(masked, model, IMAGE)


def test_half_precision_weights_keep_their_type() -> None:
    model = Chain(padding=0).to(torch.bfloat16)
    set_norms(model, bias=1.0)
    silence(model.first, [1, 2])
    shrink(model, IMAGE.to(torch.bfloat16))
    assert model.first.out_channels == 6
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_weights_that_are_not_finite_stop_it_with_a_note() -> None:
    model = Chain()
    silence(model.first, [1])
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = torch.nan
    plan = shrink(model, IMAGE)
    assert plan.layers == {}
    assert "not finite" in plan.notes[0]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_round_to_is_checked(value: object) -> None:
    with pytest.raises(ValueError, match="round_to"):
        shrink(Chain(), IMAGE, round_to=value)  # type: ignore[arg-type]


def test_bad_models_and_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="example_inputs"):
        shrink(Chain(), torch.randn(2, 5, 9, 9))
    with pytest.raises(ValueError, match="no parameters"):
        shrink(nn.ReLU(), IMAGE)
    parametrized = Chain()
    nn.utils.parametrizations.weight_norm(parametrized.first)
    with pytest.raises(ValueError, match=r"fold\(model\) before shrink"):
        shrink(parametrized, IMAGE)
    masked = Chain()
    prune.random_unstructured(masked.second, "weight", 0.5)
    with pytest.raises(ValueError, match="second is parametrized"):
        shrink(masked, IMAGE)


def test_atoms_link_what_must_go_together() -> None:
    channels = trace_channels(Residual().eval(), (IMAGE,))
    assert (channels.outputs["stem"] == channels.outputs["branch"]).all()
    assert (channels.outputs["stem"] == channels.inputs["head"]).all()
    assert (channels.outputs["stem"] == channels.through["norm_branch"]).all()
    assert (channels.inputs["stem"] == -1).all()
    assert set(channels.outputs["head"].tolist()) == set(channels.locked)


def test_constants_are_those_of_the_real_network() -> None:
    model = Chain(activation=F.silu).double().eval()
    set_norms(model)
    silence(model.first, [2, 3])
    arriving: list[Tensor] = []
    hook = model.second.register_forward_pre_hook(lambda _, args: arriving.append(args[0]))
    model(IMAGE.double())
    hook.remove()
    found = measure_constants(copy.deepcopy(model), (IMAGE.double(),))["second"]
    assert [index for index in range(8) if found[index] == found[index]] == [2, 3]
    for index in (2, 3):
        assert arriving[0][:, index].sub(found[index]).abs().max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=3, max_size=5), st.integers(0, 2**20), st.floats(0.3, 0.95))
def test_a_perceptron_keeps_exactly_the_units_on_a_path(widths: list[int], seed: int, sparsity: float) -> None:
    """Oracle: without biases a hidden unit matters iff non-zero weights lead to it and from it."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for layer in layers:
            keep = torch.rand(layer.weight.shape, generator=generator) >= sparsity
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * keep)
    reached = [torch.ones(widths[0], dtype=torch.bool)]
    for layer in layers:
        reached.append(((layer.weight != 0) & reached[-1]).any(1))
    leads = [torch.ones(widths[-1], dtype=torch.bool)]
    for layer in reversed(layers):
        leads.insert(0, ((layer.weight != 0) & leads[0][:, None]).any(0))
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    masked = copy.deepcopy(model)
    shrink(model, torch.randn(2, widths[0], generator=generator))
    kept = [layer.out_features for layer in layers[:-1]]
    assert kept == [max(1, int((a & b).sum())) for a, b in zip(reached[1:-1], leads[1:-1], strict=True)]
    x = torch.randn(16, widths[0], generator=generator)
    assert torch.allclose(masked(x), model(x), rtol=1e-5, atol=1e-7)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**20), st.floats(0.0, 0.97), st.floats(0.0, 0.9), st.integers(1, 4))
def test_random_masks_on_mixed_structures(seed: int, weights: float, filters: float, round_to: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        Residual(), nn.ReLU(), conv(4, 3, 1, 0), Concat(), conv(4, 3), Inverted(), conv(4, 3), Grouped()
    )
    set_norms(model)
    with torch.no_grad():
        for layer in [module for module in model.modules() if isinstance(module, nn.Conv2d)]:
            layer.weight *= torch.rand(layer.out_channels, 1, 1, 1) >= filters
            layer.weight *= torch.rand_like(layer.weight) >= weights
    masked = copy.deepcopy(model)
    plan = shrink(model, IMAGE, round_to=round_to)
    with torch.no_grad():
        expected, found = masked.eval()(IMAGE), model.eval()(IMAGE)
    assert (expected - found).abs().max() <= 1e-5 * expected.abs().max() + 1e-12
    assert not any("without them" in note for note in plan.notes)
