"""Channel groups of real networks: what is found, and that the shrunk network equals the scaled, masked one."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from greedy_checks import choose, scaled_by_hooks
from shrink_checks import set_norms
from torch import Tensor, nn
from torch.nn import functional as F

from compress.greedy.groups import Network, find_groups
from compress.greedy.thinning import scale_consumers, scales, shrink_plan
from compress.greedy.trial import proven
from compress.shrink import ShrinkPlan, apply_plan
from compress.shrink.graph import build_graph
from compress_then_export.models import build, describe

#: source -> (image size, groups, with streams)
NETWORKS = {
    "builtin:lenet300": (28, 2, 2),
    "builtin:lenet5_caffe": (28, 3, 3),
    "builtin:smallcnn": (28, 4, 4),
    "builtin:resnet20": (32, 9, 12),
    "builtin:vgg16": (32, 15, 15),
    "builtin:wrn28-2": (32, 13, 16),
    "torchvision:resnet18": (64, 8, 12),
    "torchvision:mobilenet_v3_small": (64, 23, 27),
    "torchvision:shufflenet_v2_x0_5": (64, 18, 18),
}
SLOW = {
    "torchvision:mobilenet_v2": (64, 20, 25),
    "torchvision:densenet121": (32, 120, 120),
    "torchvision:resnext50_32x4d": (64, 17, 21),
    "torchvision:regnet_y_400mf": (64, 33, 37),
    "torchvision:efficientnet_b0": (64, 35, 40),
    "torchvision:squeezenet1_1": (64, 25, 25),
    "torchvision:vit_b_16": (224, 12, 12),
}
CASES = [*NETWORKS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW.items())]


def images(source: str, size: int) -> Tensor:
    channels = describe(source).input_shape[0] if source.startswith("builtin:") else 3
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def network_of(model: nn.Module, x: Tensor, **settings: bool) -> Network:
    return proven(model, find_groups(model, x, **settings), x)


@pytest.mark.parametrize(("source", "expected"), CASES)
def test_shrunk_equals_scaled_and_masked(source: str, expected: tuple[int, int, int]) -> None:
    size, hidden, all_of_them = expected
    torch.manual_seed(0)
    model, x = set_norms(build(source)), images(source, size)
    if source.endswith("vit_b_16"):
        nn.init.normal_(model.heads.head.weight)  # zero when fresh
    network = network_of(model, x, streams=True)
    assert len(network.groups) == all_of_them
    assert sum(not group.stream for group in network.groups) == hidden
    rng = np.random.default_rng(0)
    thinned = [(group, choose(group, rng)) for group in network.groups]
    by_hooks = scaled_by_hooks(model, network, thinned, x)
    masked, cut = copy.deepcopy(model), copy.deepcopy(model)
    for group, imitation in thinned:
        scale_consumers(masked, group, scales(group, imitation))
    plan = ShrinkPlan.from_json(shrink_plan(model, network, thinned).to_json())
    apply_plan(cut, plan)
    with torch.no_grad():
        reference, found = masked(x), cut(x)
    assert (by_hooks - reference).abs().max() <= 1e-5 * by_hooks.abs().max()
    assert (by_hooks - found).abs().max() <= 1e-5 * by_hooks.abs().max()
    assert by_hooks.std() > 1e-6
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, cut))
    assert after < 0.75 * before


class Gated(nn.Module):
    """Squeeze and excite in an inverted residual, a stream, a concatenation, a flatten: small enough to see through."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.project = nn.Conv2d(8, 6, 1)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.side = nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(11, 3, 1)
        self.fc = nn.Linear(3 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.expand(x)))
        x = F.relu6(self.depthwise(x))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = self.project(x)
        x = x + self.inner(x)
        y: Tensor = self.fc(torch.flatten(self.head(torch.cat([x, self.side(x)], 1)), 1))
        return y


def test_groups_of_a_gated_network() -> None:
    torch.manual_seed(0)
    model, x = set_norms(Gated()), torch.randn(2, 3, 4, 4)
    network = network_of(model, x, streams=True)
    found = {g.name: (g.units, {n: c.shape[1] for n, c in g.consumers.items()}, g.stream) for g in network.groups}
    assert found == {
        "expand": (8, {"squeeze": 1, "project": 1}, False),
        "squeeze": (4, {"excite": 1}, False),
        "project": (6, {"inner": 1, "side": 1, "head": 1}, True),
        "side": (5, {"head": 1}, False),
        "head": (3, {"fc": 16}, False),
    }
    assert [group.name for group in network.groups] == ["expand", "squeeze", "project", "side", "head"]
    columns = {g.name: {n: c.tolist() for n, c in g.consumers.items()} for g in network.groups}
    assert columns["project"]["head"] == [[c] for c in range(6)]
    assert columns["side"]["head"] == [[c] for c in range(6, 11)]
    assert columns["head"]["fc"] == [list(range(16 * c, 16 * c + 16)) for c in range(3)]


def test_a_grouped_convolution_goes_by_whole_groups() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 2, 1))
    x = torch.randn(2, 3, 6, 6)
    network = network_of(model, x)
    (group,) = network.groups
    assert (group.units, group.consumers["4"].shape) == (4, (4, 4))
    cut = copy.deepcopy(model)
    apply_plan(cut, shrink_plan(model, network, [(group, choose(group, np.random.default_rng(0)))]))
    assert (cut[2].groups, cut[2].in_channels, cut[2].out_channels) == (2, 4, 8)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.shared(F.relu(self.shared(F.relu(self.first(x)))))))
        return y


@pytest.mark.parametrize(
    ("model", "settings", "name", "reason"),
    [
        (Twice(), {}, "first", "shared is called 2 times in one forward"),
        (Gated(), {}, "project", "several layers add to these channels; streams=True thins them too"),
        (Gated(), {"exclude": ("exp*",)}, "expand", "excluded"),
        (nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 2)), {}, "0", "it has one channel"),
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)), {}, "0", "1 normalises across channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 2, 1)), {}, "0", "which reads it, is a ConvTranspose"),
    ],
)
def test_what_is_left_out_and_why(model: nn.Module, settings: dict[str, object], name: str, reason: str) -> None:
    x = torch.randn(2, 3, 4, 4) if any(isinstance(m, nn.Conv2d) for m in model.modules()) else torch.randn(2, 4)
    network = find_groups(model, x, **settings)  # type: ignore[arg-type]
    assert reason in network.left_out[name]
    assert all(group.name != name for group in network.groups)


class Shuffled(nn.Module):
    """A channel shuffle by hand, which the dependency graph takes for the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.good = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.good(F.relu(self.last(self.first(x).flip(1))))
        return y


def test_what_does_not_verify_is_left_out() -> None:
    torch.manual_seed(0)
    model, x = Shuffled(), torch.randn(2, 3, 5, 5)
    assert [group.name for group in find_groups(model, x).groups] == ["first", "last"]
    network = network_of(model, x)
    assert [group.name for group in network.groups] == ["last"]
    assert "cut, it does not compute" in network.left_out["first"]


class Fixed(nn.Module):
    """A number of channels in the code, where nothing can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.second(F.relu(self.first(x) * torch.ones(8)))))
        return y


def test_what_does_not_run_once_cut_is_left_out_with_the_error() -> None:
    network = network_of(Fixed(), torch.randn(2, 4))
    assert [group.name for group in network.groups] == ["second"]
    assert re.match("cut, it does not run: The size of tensor a .* must match .* tensor b", network.left_out["first"])


class Halved(nn.Module):
    """The dependency graph takes one half for the other, and unequal halves cannot be told apart after a cut anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.left, self.right, self.last = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.relu(self.first(x)).chunk(2, 1)
        y: Tensor = self.last(F.relu(self.left(left) + self.right(right)))
        return y


def test_halves_that_are_read_apart_stay() -> None:
    torch.manual_seed(0)
    network = proven(Halved(), find_groups(Halved(), torch.randn(2, 3, 5, 5), streams=True), torch.randn(2, 3, 5, 5))
    assert [group.name for group in network.groups] == ["left"]
    assert "cut, it does not run: " in network.left_out["first"]


class Mixed(nn.Module):
    """Half of the channels pass by, then the halves are interleaved: a block of ShuffleNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.expand, self.project = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.between, self.last = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = self.first(x).chunk(2, 1)
        x = torch.cat([kept, self.project(F.relu(self.expand(changed)))], 1)
        size = x.shape
        x = x.view(size[0], 2, 4, *size[2:]).transpose(1, 2).contiguous().view(size)
        y: Tensor = self.last(F.relu(self.between(x)))
        return y


@pytest.mark.parametrize("barriers", [False, True])
def test_around_a_channel_shuffle_what_never_meets_it_is_thinned(
    barriers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the trial finds that a guess about the shuffle was wrong, or nothing is guessed about it."""

    def cautious(*args: Any, **_: object) -> Any:
        return build_graph(*args, barriers=True)

    if barriers:
        monkeypatch.setattr("compress.shrink.channels.build_graph", cautious)
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(2, 3, 5, 5)
    network = network_of(model, x)
    assert {group.name: list(group.consumers) for group in network.groups} == {
        "expand": ["project"],
        "between": ["last"],
    }
    if barriers:
        assert (
            network.left_out["first"] == "it passes a channel shuffle, attention or the like, which cannot be followed"
        )


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"batches: the model does not run on inputs of shape \[1, 4, 4\]"):
        find_groups(Gated(), torch.randn(2, 1, 4, 4))

    def refuse(*_: object, **__: object) -> None:
        raise IndexError("lost")

    monkeypatch.setattr("compress.shrink.channels.build_graph", refuse)
    with pytest.raises(ValueError, match="model: its channels cannot be followed \\(IndexError: lost\\); prune single"):
        find_groups(Gated(), torch.randn(2, 3, 4, 4))
