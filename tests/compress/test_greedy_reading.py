"""One run of the first consumer for every unit against running it gated, and global steps against whole runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from shrink_checks import set_norms
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from compress.greedy.discrepancy import squared_error
from compress.greedy.global_steps import CANDIDATES, GlobalImitation
from compress.greedy.groups import find_groups
from compress.greedy.reading import Reading
from compress.greedy.replay import Replay
from compress.greedy.thinning import scale_consumers
from compress_then_export.models import build


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(8, 5), (3, 8)),
        (nn.Linear(8, 5, bias=False), (3, 2, 8)),
        (nn.Conv1d(8, 5, 3, padding=2, dilation=2), (3, 8, 9)),
        (nn.Conv2d(8, 5, 3, stride=2, padding=1, padding_mode="reflect"), (3, 8, 7, 6)),
        (nn.Conv2d(8, 5, (1, 3), padding="same", bias=False), (3, 8, 7, 6)),
        (nn.Conv3d(8, 5, 2), (3, 8, 3, 3, 4)),
    ],
    ids=["linear", "tokens", "1d", "reflect", "same", "3d"],
)
@pytest.mark.parametrize("columns", [[[6], [0], [3]], [[1, 4], [7, 2]]], ids=["one column", "two columns"])
def test_every_unit_of_every_layer(module: nn.Module, shape: tuple[int, ...], columns: list[list[int]]) -> None:
    """A layer that reads channels of others too, before any gate."""
    torch.manual_seed(0)
    module, x = copy.deepcopy(module).double(), torch.randn(shape, dtype=torch.float64)
    dim = 2 if x.dim() == 3 and isinstance(module, nn.Linear) else 1
    with torch.no_grad():
        reading = Reading(module, np.array(columns), x)
        for unit, picked in enumerate(columns):
            whole = torch.ones(8, dtype=torch.float64)
            whole[picked] += 0.7
            expected = module(x * whole.reshape(-1, *[1] * (x.dim() - 1 - dim)))
            torch.testing.assert_close(reading.plus(unit, 0.7), expected, rtol=1e-12, atol=1e-12)


class Concatenated(nn.Module):
    """The reader also has columns of another group, and works in place on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 3, 3, padding=1)
        self.c, self.d = nn.Conv2d(7, 5, 3), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.relu(self.a(x)), torch.tanh(self.b(x))], dim=1)
        y: Tensor = self.d(F.relu(self.c(both), inplace=True))
        return y


class Gated(nn.Module):
    """A second reader behind the first one, as squeeze-and-excitation has it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.squeeze, self.excite, self.b = (
            nn.Conv2d(2, 6, 1), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y: Tensor = self.b(x * gate)
        return y


class Aliased(nn.Module):
    """A view of a value lives on at the cut, and the value is written to behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.c, self.d, self.last = (
            nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        view = hidden.flatten(2)
        y = F.relu(self.c(F.relu(self.a(hidden + 1))))
        hidden.mul_(0.1)
        z: Tensor = self.last(y + F.relu(self.d(view.view_as(hidden))))
        return z


class Branching(Concatenated):
    """It cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() < 1e9 else x + 1)


class Clamped(nn.Conv2d):
    """The layer's `forward`, with another formula within."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight, bias).clamp(-0.2, 0.2)


class ClampedCall(nn.Conv2d):
    """The layer's `forward`, and something behind it."""

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = super().__call__(x)
        return y.clamp(-0.2, 0.2)


def with_reader(layer: type[nn.Conv2d]) -> Callable[[], nn.Module]:
    def build_model() -> nn.Module:
        model = Concatenated()
        model.c = layer(7, 5, 3)
        return model

    return build_model


def hooked(change: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    def build_model() -> nn.Module:
        model = Concatenated()
        change(model.c)
        return model

    return build_model


BEYOND_THE_FORMULA = {
    "hook": hooked(lambda c: c.register_forward_hook(lambda _module, _args, y: 3 * y + 1)),
    "clamping hook": hooked(lambda c: c.register_forward_hook(lambda _module, _args, y: y.clamp(-0.2, 0.2))),
    "pre-hook": hooked(lambda c: c.register_forward_pre_hook(lambda _module, args: args[0].tanh())),
    "formula": with_reader(Clamped),
    "call": with_reader(ClampedCall),
}


def flattened() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3), nn.Tanh(), nn.Linear(3, 2))


@pytest.mark.parametrize(
    "build_model",
    [Concatenated, Gated, Aliased, Branching, flattened, *BEYOND_THE_FORMULA.values()],
    ids=["concatenated", "gated", "aliased", "branching", "flattened", *BEYOND_THE_FORMULA],
)
def test_steps_are_those_of_whole_runs_of_scaled_copies(build_model: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build_model(), torch.randn(4, 2, 5, 5)
    groups = find_groups(model, x).groups
    model, x = model.double(), x.double()
    with torch.no_grad():
        full = model(x)
    for group in groups:
        units = group.units
        replay = Replay(copy.deepcopy(model), [x])
        replay.advance(group.consumers)
        assert replay.traced == (build_model is not Branching)
        before = np.zeros(units)
        search = GlobalImitation(replay, group, [full], squared_error, exact_size=units, seed=0)
        for count, (a, value) in enumerate(islice(search.steps(0), 4)):
            tries = []
            for i in range(units):
                moved = (before * count + np.eye(units)[i]) / (count + 1)
                scaled = copy.deepcopy(model)
                scale_consumers(scaled, group, units * moved)
                tries.append(float(squared_error(scaled(x).detach(), full)))
            chosen = int(np.argmax(a * (count + 1) - before * count))
            assert value == pytest.approx(min(tries), rel=1e-9)
            assert tries[chosen] == pytest.approx(min(tries), rel=1e-9)
            before = a


def test_the_layer_at_the_cut_runs_once_for_all_that_are_tried() -> None:
    torch.manual_seed(0)
    model, x = set_norms(build("builtin:resnet20")), torch.randn(2, 3, 32, 32)
    group = find_groups(model, x).groups[2]
    replay = Replay(copy.deepcopy(model), [x])
    replay.advance(group.consumers)
    with torch.no_grad():
        full = model(x)
    calls = dict.fromkeys([*group.consumers, "fc"], 0)
    watched = {replay.model.get_submodule(name): name for name in calls}

    def count(module: nn.Module, *_: object) -> None:
        if module in watched:
            calls[watched[module]] += 1

    search = GlobalImitation(replay, group, [full], squared_error, exact_size=0, seed=0)
    handle = register_module_forward_hook(count)  # of the layers' own, the shortcut would take notice
    list(islice(search.steps(0), 4))
    handle.remove()
    (consumer,) = group.consumers
    assert calls[consumer] == 1 + 3 * 2  # of a step: one in the backward pass, one for all that are tried
    assert calls["fc"] == 1 + 3 * (1 + CANDIDATES) == search.forwards + search.backwards
