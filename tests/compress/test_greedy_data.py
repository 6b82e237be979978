"""What greedy imitation takes for models and batches, what it says of others, and that it leaves both as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from greedy_checks import taught
from method_checks import DATA, network, same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
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


def compiled() -> nn.Module:
    model: nn.Module = torch.compile(network())  # type: ignore[assignment]
    return model


def scripted() -> nn.Module:
    model: nn.Module = torch.jit.trace(network(), DATA[0][0])  # type: ignore[no-untyped-call]
    return model


def masked() -> nn.Module:
    model = network()
    prune.l1_unstructured(model[3], "weight", 0.5)  # type: ignore[no-untyped-call]
    return model


def broken() -> nn.Module:
    model = network()
    nn.init.constant_(model[3].bias, float("nan"))
    return model


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (compiled, "model: it is compiled; give the module that was compiled"),
        (scripted, "model: it is TorchScript"),
        (masked, r"model: torch\.nn\.utils\.prune is at work in 3; prune\.remove\(\) it first"),
        (broken, r"model: 3\.bias holds NaN or infinite values"),
    ],
)
def test_models_that_are_no_plain_networks(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GreedyImitation(width=0.5).attach(make(), DATA)


class Tokens(nn.Module):
    """Whole numbers below 50, in float64 no tokens any more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.embedding = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classes(self.encoder(self.embedding(x)).mean(1))
        return y


@pytest.mark.parametrize("settings", [{"width": 0.5}, {"macs": 0.5}])
def test_tokens(settings: dict[str, Any]) -> None:
    model, generator = Tokens().eval(), torch.Generator().manual_seed(0)
    data = [(torch.randint(50, (8, 12), generator=generator), DATA[0][1]) for _ in range(2)]
    whole = copy.deepcopy(model)
    pruner = GreedyImitation(**settings)
    pruner.attach(model, data)
    assert set(pruner.run.groups) == {
        f"encoder.layers.{n}.{name}" for n in (0, 1) for name in ("self_attn.query", "linear1")
    }
    assert pruner.run.findings["macs_left"] <= 0.51
    assert pruner.run.plan is not None
    assert pruner.run.plan.difference < 1e-9
    x = torch.randint(50, (64, 12), generator=generator)
    assert (model(x) - whole(x)).norm() < 0.5 * (whole(x) - whole(x).mean(0)).norm()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            lambda body, x: F.dropout(body(x)),
            "model: two runs on the same inputs differ in eval mode; .* deterministic",
        ),
        (lambda body, x: body(x.float()), "model: it does not run in float64, where cuts are proven: .* Double"),
    ],
    ids=["random", "float32"],
)
def test_models_whose_cuts_cannot_be_proven(forward: Callable[[nn.Module, Tensor], Tensor], message: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.body, x)

    model, state = Model(), torch.get_rng_state()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        GreedyImitation(width=0.5).attach(model, DATA)
    assert same(model, before)
    assert torch.equal(torch.get_rng_state(), state)


class Returns(nn.Module):
    """A network with something behind it."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.body, self.change = network(), change

    def forward(self, x: Tensor) -> object:
        return self.change(self.body(x))


@pytest.mark.parametrize("settings", [{"width": 0.5}, {"loss_gap": 0.1}, {"macs": 0.5, "imitation": "global"}])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: (y, y), "model: it returns tuple; imitation compares one tensor of outputs"),
        (lambda y: y.mean(1), r"model: its outputs have shape \[8\]; imitation compares \[samples, outputs\]"),
        (
            lambda y: y.argmax(1, keepdim=True),
            "model: its outputs are int64; imitation compares floating-point numbers",
        ),
        (lambda y: y / 0, "model: its outputs are NaN or infinite on the calibration data"),
        (lambda y: y[:, :1], "discrepancy: cross_entropy of a single output is always 0; use squared"),
    ],
    ids=["tuple", "flat", "integers", "infinite", "single"],
)
def test_outputs_that_cannot_be_compared(
    change: Callable[[Tensor], object], message: str, settings: dict[str, Any]
) -> None:
    model = Returns(change)
    before = copy.deepcopy(model)
    for work in (GreedyImitation(**settings).rehearse, GreedyImitation(**settings).attach):
        with pytest.raises(ValueError, match=message):
            work(model, DATA)
    assert same(model, before)


def test_a_single_output_is_imitated_by_squares() -> None:
    model = Returns(lambda y: y[:, :1])
    GreedyImitation(width=0.5, discrepancy="squared").attach(model, DATA)
    assert model.body[0].out_channels == 4  # type: ignore[union-attr,index]


def test_outputs_that_are_infinite_on_a_later_batch() -> None:
    model, data = Returns(torch.exp), [DATA[0], (1e4 * DATA[1][0], DATA[1][1])]
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="model: its outputs are NaN or infinite on the calibration data"):
        GreedyImitation(width=0.5).attach(model, data)
    assert same(model, before)


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
