"""Shrink where it must hold back: shared modules, guilty parts, outputs, odd inputs; and random networks."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shrink_checks import (
    IMAGE,
    Chain,
    Concat,
    Grouped,
    Inverted,
    Residual,
    _one_seeded_thread,  # noqa: F401
    assert_same,
    conv,
    ignore,
    set_norms,
    shrink_checked,
    silence,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from compress.shrink import shrink
from compress.shrink.channels import trace_channels
from compress.shrink.constants import measure_constants


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
    assert any("0: 1 dead channel stays: without them" in note for note in plan.notes)


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
