"""Two-step execution against the spatial convolution, in torch and in onnxruntime, and its cost."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from method_checks import network
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress import fold
from compress.interspace_conv import InterspaceConv2d, to_two_step
from compress.methods import OneShot
from exporters import export
from exporters.inspection import inspect
from runtime_check import load


def attached(module: nn.Module, sharing: str = "fine", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    OneShot(**{"sparsity": 0.6, "interspace": sharing, "basis": "onb", **settings}).attach(module)
    return module.eval()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sharing", ["fine", "in_2", "in_4", "out_3"])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": (0, 2), "dilation": (2, 1)},
        {"padding": "same", "padding_mode": "reflect"},
        {"bias": False},
        {"kernel_size": (1, 3)},
    ],
)
def test_two_steps_equal_the_spatial_convolution(sharing: str, geometry: dict[str, Any]) -> None:
    model = attached(nn.Sequential(nn.Conv2d(5, 7, **{"kernel_size": 3, **geometry})), sharing)
    x = inputs(2, 5, 9, 9)
    expected = model(x)
    two = to_two_step(model)
    assert two is model
    assert isinstance(two[0], InterspaceConv2d)
    torch.testing.assert_close(two(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("groups", "sharing"), [(2, "fine"), (2, "in_1"), (2, "in_2"), (4, "coarse"), (4, "in_1")])
def test_grouped_convolutions(groups: int, sharing: str) -> None:
    model = attached(nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups)), sharing)
    x = inputs(2, 4, 6, 6)
    expected = model(x)
    torch.testing.assert_close(to_two_step(model)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("basis", "size"), [("random", 4), ("random", 12), ("fitted", 5)])
def test_dictionaries(basis: str, size: int) -> None:
    model = attached(nn.Sequential(nn.Conv2d(3, 4, 3)), basis=basis, basis_size=size)
    x = inputs(2, 3, 6, 6)
    expected = model(x)
    two = to_two_step(model)
    assert two[0].mixing[0].weight.shape == (4, 3 * size, 1, 1)
    torch.testing.assert_close(two(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharing", ["coarse", "out_5"])
def test_the_exported_graph_is_as_sparse_as_the_coefficients_and_onnxruntime_agrees(
    sharing: str, tmp_path: Path
) -> None:
    model = network()
    pruner = OneShot(sparsity=0.9, interspace=sharing, basis="onb", exclude=["6"])
    pruner.attach(model)
    model.eval()
    x = inputs(2, 3, 8, 8)
    spatial = fold(copy.deepcopy(model))(x)
    state = torch.get_rng_state()
    two = to_two_step(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(hasattr(module, "parametrizations") for module in two.modules())
    assert not any(module.training for module in two.modules())
    living = sum(int(mask.sum()) for mask in pruner.run.masks())
    assert sum(int((m.weight != 0).sum()) for n, m in two.named_modules() if ".mixing." in n) == living
    export(two, x, tmp_path / "two.onnx")
    session = load(tmp_path / "two.onnx", threads=1)
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), spatial.detach(), rtol=1e-4, atol=1e-4)


def test_multiply_adds_are_those_of_5_15(tmp_path: Path) -> None:
    channels, sparsity = 16, 0.75
    macs = {}
    for interspace in (None, "fine"):
        model = nn.Sequential(nn.Conv2d(4, channels, 3, bias=False))
        OneShot(sparsity=sparsity, interspace=interspace, basis="onb" if interspace else "standard").attach(model)
        plain = to_two_step(model) if interspace else fold(model)
        export(plain.eval(), inputs(1, 4, 8, 8), tmp_path / f"{interspace}.onnx", encoding="dense")
        macs[interspace] = inspect(tmp_path / f"{interspace}.onnx").nonzero_macs
    assert macs[None] == round((1 - sparsity) * channels * 4 * 9) * 36
    assert macs["fine"] / macs[None] == pytest.approx(1 + 9 / (channels * (1 - sparsity)))


@pytest.mark.parametrize(("sharing", "groups"), [("fine", 1), ("in_1", 1), ("out_4", 4)])
def test_a_dense_runtime_pays_the_overhead_of_q_0(sharing: str, groups: int) -> None:
    spatial, two = FlopCounterMode(display=False), FlopCounterMode(display=False)
    model = attached(nn.Sequential(nn.Conv2d(4, 16, 3, bias=False)), sharing, sparsity=0.9)
    plain, steps = fold(copy.deepcopy(model)), to_two_step(model)
    with spatial:
        plain(inputs(1, 4, 8, 8))
    with two:
        steps(inputs(1, 4, 8, 8))
    assert two.get_total_flops() / spatial.get_total_flops() == pytest.approx(1 + groups * 9 / 16)


def test_a_convolution_of_two_names_and_a_model_that_is_one() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential()
    model.add_module("one", shared)
    model.add_module("two", shared)
    model = attached(model)
    x = inputs(1, 4, 6, 6)
    expected = model(x)
    torch.testing.assert_close(to_two_step(model)(x), expected, rtol=1e-4, atol=1e-5)
    assert model.one is model.two
    alone = attached(nn.Conv2d(4, 4, 3))
    expected = alone(x)
    two = to_two_step(alone)
    assert isinstance(two, InterspaceConv2d)
    torch.testing.assert_close(two(x), expected, rtol=1e-4, atol=1e-5)


def test_what_has_no_two_steps_is_refused_and_stays_attached() -> None:
    model = attached(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=2)), "out_4")
    x = inputs(1, 4, 8, 8)
    expected = model(x)
    with pytest.raises(ValueError, match="1: out_4 bases and a convolution of 2 groups have no two steps; fold it"):
        to_two_step(model)
    assert torch.equal(model(x), expected)
    with pytest.raises(ValueError, match="model: no layer has a filter basis"):
        to_two_step(fold(model))
