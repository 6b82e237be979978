"""Which models greedy imitation takes, what it says of others, and that these stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_checks import DATA, network, same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from compress.methods import GreedyImitation


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
    """Its inputs are whole numbers below 50, and in float64 no tokens any more."""

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


def test_pixels_in_bytes() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x / 255)
            return y

    model = Model()
    x = torch.randint(256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    GreedyImitation(width=0.5).attach(model, [(x, DATA[0][1])])
    assert model.body[0].out_channels == 4  # type: ignore[index, union-attr]


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


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.second(input=F.relu(self.first(x)))).mean((2, 3)))
        return y


class Overwriting(Keyword):
    """What the second layer has read is changed in place: autograd cannot go back."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        read = self.second(hidden)
        y: Tensor = self.last(F.relu(read + hidden.mul_(0.5)[:, :6, 1:-1, 1:-1]).mean((2, 3)))
        return y


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Keyword, "model: second takes its input as a keyword; call it with its input first"),
        (
            Overwriting,
            "imitation: global imitation finds no gradients, the model works in place on what second or a layer behind "
            "reads; use imitation: local",
        ),
    ],
)
def test_ways_to_call_a_layer_that_cannot_be_followed(make: Callable[[], nn.Module], message: str) -> None:
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        GreedyImitation(width=0.5).attach(model, DATA)
    assert same(model, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_without_gradients_it_is_imitated_locally() -> None:
    model = Overwriting()
    GreedyImitation(width=0.5, imitation="local").attach(model, DATA)
    assert model.first.out_channels == 7  # of those that are not added to


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
