"""Which batches and settings greedy imitation takes, what it says of others, and that batches stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from greedy_checks import taught
from method_checks import DATA, network, same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from compress.methods import GreedyImitation

Pairs = list[tuple[Tensor, Tensor]]


class Doubles(nn.Module):
    """Works in place on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        y: Tensor = self.body(x)
        return y


class DoublesUntraced(Doubles):
    """The same, with control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() < 1e9 else x


class Upsampling(nn.Module):
    """Most of its work is in a transposed convolution with stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(16, 16, 4, stride=4), nn.Conv2d(16, 4, 1)
        self.classes = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.second(F.relu(self.first(x))))))
        y: Tensor = self.classes(F.relu(self.last(x)).mean((2, 3)))
        return y


def macs(model: nn.Module) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(DATA[0][0][:1].clone())
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("make", [network, Upsampling])
def test_macs_are_those_that_torch_counts(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    whole = macs(model)
    pruner = GreedyImitation(macs=0.5, imitation="local")
    pruner.attach(model, DATA)
    assert macs(model) / whole == pytest.approx(pruner.run.findings["macs_left"], rel=1e-6)
    assert 0.25 < pruner.run.findings["macs_left"] <= 0.5


@pytest.mark.parametrize(
    "make",
    [Doubles, DoublesUntraced, lambda: nn.Sequential(nn.ReLU(inplace=True), *network())],
    ids=["doubles", "untraced", "relu"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_that_work_in_place_on_their_inputs(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    data = [(x.to(dtype), y) for x, y in DATA]
    given = copy.deepcopy(data)
    model = make().to(dtype)
    pruner = GreedyImitation(width=0.5, imitation="both")
    pruner.attach(model, data)
    assert {one.search for one in pruner.run.groups.values()} <= {"local", "global"}
    assert len(pruner.run.groups) == 3
    assert all(
        torch.equal(a, b) for pair, other in zip(data, given, strict=True) for a, b in zip(pair, other, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
    GreedyImitation(width=0.5).attach(model, [(torch.randn(8, 12).to(dtype), torch.randint(10, (8,)))])
    assert model[0].out_features == 16
    assert model[2].weight.dtype == dtype


def labelled(change: Callable[[Tensor], Tensor]) -> Pairs:
    return [(x, change(y)) for x, y in DATA]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (
            labelled(lambda y: y + 5),
            {"loss_gap": 0.1},
            "batches: number 0 has labels from 5 to .*, but the model has 5",
        ),
        (labelled(lambda y: y + 5), {"accuracy_drop": 1}, "batches: number 0 has labels from 5 to"),
        (labelled(lambda y: y - 1), {"loss_gap": 0.1}, "batches: number 0 has labels from -1 to"),
        (labelled(Tensor.float), {"loss_gap": 0.1}, r"batches: number 0 has labels of shape \[8\] and torch.float32"),
        (
            labelled(lambda y: y[:, None]),
            {"loss_gap": 0.1},
            r"labels of shape \[8, 1\] .* whole numbers of shape \[8\]",
        ),
        (labelled(lambda y: F.one_hot(y, 5)), {"accuracy_drop": 1}, r"labels of shape \[8, 5\]"),
        (
            [(DATA[0][0][0], DATA[0][1][0])],
            {"width": 0.5},
            "batches: number 0 is a single sample; add a first dimension",
        ),
        (
            DATA,
            {"width": 0.5, "exclude": ["layer9.*"]},
            r"exclude: 'layer9\.\*' matches no .*; the model has 0, 3, 6, 8",
        ),
        (
            DATA,
            {"accuracy_drop": 100},
            r"accuracy_drop: 100\.0 points are no bound where the whole network is right on",
        ),
    ],
)
def test_batches_and_settings_that_do_not_fit(data: Pairs, settings: dict[str, object], message: str) -> None:
    model = network()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        GreedyImitation(**settings, calibration_batches=1, held_out_batches=1).attach(model, data)  # type: ignore[arg-type]
    assert same(model, before)


def test_labels_are_not_looked_at_where_no_target_needs_them() -> None:
    model = network()
    GreedyImitation(width=0.5).attach(model, labelled(lambda y: y.float() - 7))
    assert model[0].out_channels == 4


def test_excluded_by_the_name_of_the_weight() -> None:
    model = taught(DATA)
    GreedyImitation(width=0.5, exclude=("3.weight",)).attach(model, DATA)
    assert model[3].out_channels == 12  # type: ignore[union-attr,index]
    assert model[0].out_channels == 4  # type: ignore[union-attr,index]
