"""Who shares a filter basis: the counts and groups that thesis 002 prints."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from compress.interspace import Interspace
from compress.prunable import prunable_weights
from compress.sharing import shared
from compress_then_export.models import build


def groups(model: nn.Module, sharing: str, **settings: bool) -> list[list[str]]:
    weights = prunable_weights(model).weights
    return [[w.name for w in group.weights] for group in shared(model, weights, sharing, **settings)]


def parameters(model: nn.Module, sharing: str, **settings: bool) -> int:
    chosen, _ = Interspace(sharing=sharing, **settings).start(model, prunable_weights(model).weights)
    return sum(basis.filters.numel() for basis in {id(basis): basis for basis in chosen.values()}.values())


def test_medium_of_vgg16_is_2_2_3_3_3_convolutions() -> None:
    assert [len(group) for group in groups(build("builtin:vgg16"), "medium")] == [2, 2, 3, 3, 3]


@pytest.mark.parametrize("source", ["resnet18", "resnet50"])
def test_medium_of_imagenet_resnets_is_one_a_block(source: str) -> None:
    found = groups(build(f"torchvision:{source}"), "medium", large_kernels=True)
    assert [{name.split(".")[0] for name in group} for group in found] == [
        {"conv1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"},
    ]  # fmt: skip


def test_medium_of_a_cifar_resnet_tells_the_first_convolution_from_the_first_block() -> None:
    model = build("builtin:resnet20")
    found = groups(model, "medium")
    assert [len(group) for group in found] == [1, 6, 6, 6]


def test_medium_without_named_blocks_goes_by_resolution() -> None:
    found = groups(build("torchvision:mobilenet_v2"), "medium")
    assert [len(group) for group in found] == [2, 2, 3, 7, 4]
    numbers = [int(group[0].split(".")[1]) for group in found]
    assert all(a < b for a, b in pairwise(numbers))


def test_coarse_and_medium_never_mix_kernel_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 5), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, (1, 3)))
    assert groups(model, "coarse") == [["0.weight", "2.weight"], ["1.weight"], ["3.weight"]]
    assert groups(model, "medium") == groups(model, "coarse")


def test_resnet50_adds_about_a_hundredth_of_a_percent() -> None:
    model = build("torchvision:resnet50")
    total = sum(p.numel() for p in model.parameters())
    assert parameters(model, "fine") == 16 * 81
    assert parameters(model, "fine", large_kernels=True) == 16 * 81 + 49**2
    assert parameters(model, "fine", large_kernels=True) / total == pytest.approx(1.45e-4, rel=0.01)
    assert parameters(model, "coarse") == 81
    assert parameters(model, "medium") == 4 * 81


def test_channels_are_neighbours_from_the_first_and_the_last_group_may_be_smaller() -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Conv2d(10, 6, 3), nn.Conv2d(6, 6, 3, groups=6))
    weights = prunable_weights(model).weights
    for sharing, groups_each in (("out_4", [3, 2, 2]), ("in_4", [1, 3, 1])):
        found, _ = Interspace(sharing=sharing).start(model, weights)
        assert [len(found[weight.name].filters) for weight in weights] == groups_each
    assert parameters(model, "out_4") == 7 * 81
    one, _ = Interspace(sharing="in_4", basis="onb").start(model, weights)
    filters = one["1.weight"].of_channels(10)
    assert torch.equal(filters[0], filters[3])
    assert torch.equal(filters[8], filters[9])
    assert not torch.equal(filters[3], filters[4])


def test_layers_without_a_basis() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 7), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 4))
    assert groups(model, "fine") == [["2.weight"]]
    assert groups(model, "fine", large_kernels=True) == [["1.weight"], ["2.weight"]]


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ("corse", "interspace: 'corse' is not one of coarse, medium, fine, or in_N / out_N .*did you mean 'coarse'"),
        ("out_0", "interspace: 'out_0' is not one of"),
        ("in_", "interspace: 'in_' is not one of"),
        (3, "interspace: 3 is not one of"),
        ("in_9", "interspace: 'in_9' fits no layer, none has more than 8 input channels; fine is one basis a layer"),
        ("out_5", "interspace: 'out_5' fits no layer, none has more than 4 output channels"),
    ],
)
def test_wrong_sharing(sharing: str, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 3))
    with pytest.raises(ValueError, match=message):
        groups(model, sharing)


def test_sharing_that_fits_no_layer_says_why() -> None:
    linear = build("builtin:lenet300")
    with pytest.raises(ValueError, match=r"interspace: 'fine' fits no layer, .* leave interspace out"):
        groups(linear, "fine")
    with pytest.raises(ValueError, match=r"interspace: 'coarse' fits no layer, .* up to 5x5; set large_kernels"):
        groups(nn.Conv2d(3, 4, 7), "coarse")
