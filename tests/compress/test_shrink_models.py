"""Whole networks: every builtin and many of torchvision's, with random BatchNorm statistics and non-zero biases."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shrink_checks import set_norms
from torch import Tensor, nn

from compress.shrink import ShrinkPlan, apply_plan, load_shrunk, save_shrunk, shrink
from compress_then_export.models import build, builtin_names, describe
from compress_then_export.vision import torchvision

FAST = {
    "resnet18": 64,
    "mobilenet_v3_small": 64,
    "squeezenet1_1": 64,
    "densenet121": 32,
    "googlenet": 64,
    "shufflenet_v2_x0_5": 64,
}
SLOW = {
    "resnet50": 64,
    "mobilenet_v2": 64,
    "resnext50_32x4d": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "vgg11_bn": 32,
    "inception_v3": 96,
    "mnasnet0_5": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
}
SLOW_BUILTINS = {"wrn28-10"}
DAMAGE = {"filters": 0.0, "filters and weights": 0.98}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def damage(model: nn.Module, *, sparsity: float, seed: int = 0) -> nn.Module:
    """Zero 40 % of the filters of every layer but the last, without touching any bias, then single weights."""
    generator = torch.Generator().manual_seed(seed)
    set_norms(model)
    layers = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    for layer in layers[:-1]:
        rows = layer.weight.shape[0]
        layer.weight[torch.randperm(rows, generator=generator)[: int(0.4 * rows)]] = 0
    for layer in layers:
        layer.weight *= torch.rand(layer.weight.shape, generator=generator) >= sparsity
    return model.eval()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def run(model: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = model.eval()(x)
    return output


def check(make: Any, shape: tuple[int, ...], sparsity: float, folder: Path) -> tuple[ShrinkPlan, float]:
    """Shrink, compare, replay, save and load. Returns the plan and the share of parameters that is left."""
    torch.manual_seed(0)
    masked = damage(make(), sparsity=sparsity)
    shrunk, replayed = copy.deepcopy(masked), copy.deepcopy(masked)
    plan = shrink(shrunk, torch.randn(2, *shape))
    for x in (torch.randn(3, *shape), torch.randn(2, *shape) * 5):
        expected = run(masked, x)
        assert (expected - run(shrunk, x)).abs().max() <= 1e-5 * expected.abs().max()
    assert parameters(shrunk) < parameters(masked) or plan.removed_outputs == 0
    assert not any("without them" in note for note in plan.notes)

    apply_plan(replayed, ShrinkPlan.from_json(plan.to_json()))
    assert torch.equal(run(replayed, x), run(shrunk, x))
    del replayed
    save_shrunk(shrunk, plan, folder)
    loaded = load_shrunk(make(), folder)
    assert torch.equal(run(loaded, x), run(shrunk, x))
    return plan, parameters(shrunk) / parameters(masked)


def make_torchvision(name: str) -> nn.Module:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = getattr(torchvision.models, name)(weights=None, **extra)
    return model


BUILTINS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_BUILTINS else []) for name in builtin_names()]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", BUILTINS)
def test_builtins(name: str, kind: str, tmp_path: Path) -> None:
    source = f"builtin:{name}"
    plan, left = check(lambda: build(source), describe(source).input_shape, DAMAGE[kind], tmp_path)
    assert left < 0.7
    assert plan.difference < 1e-9


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FAST)
def test_torchvision(name: str, kind: str, tmp_path: Path) -> None:
    _, left = check(lambda: make_torchvision(name), (3, FAST[name], FAST[name]), DAMAGE[kind], tmp_path)
    assert left < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", SLOW)
def test_more_of_torchvision(name: str, kind: str, tmp_path: Path) -> None:
    _, left = check(lambda: make_torchvision(name), (3, SLOW[name], SLOW[name]), DAMAGE[kind], tmp_path)
    assert left < 0.96


def test_a_network_that_the_graph_cannot_follow_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise IndexError("lost")

    monkeypatch.setattr("compress.shrink.channels.build_graph", refuse)
    plan, left = check(lambda: build("builtin:lenet300"), (1, 28, 28), 0.0, tmp_path)
    assert left == 1.0
    assert plan.notes[0] == "nothing was removed: the dependency graph cannot follow this model (IndexError: lost)"


def test_filters_removed_with_their_batchnorm_leave_nothing_behind() -> None:
    """What the filter-wise methods do: weight, BatchNorm scale and shift of a filter become zero."""
    torch.manual_seed(0)
    model = build("builtin:vgg16")
    generator = torch.Generator().manual_seed(0)
    pairs = list(zip(model.modules(), list(model.modules())[1:], strict=False))
    with torch.no_grad():
        set_norms(model)
        expected: list[int] = []
        for layer, norm in pairs:
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                gone = torch.randperm(layer.out_channels, generator=generator)[: layer.out_channels // 2]
                layer.weight[gone] = 0
                norm.weight[gone] = 0
                norm.bias[gone] = 0
                expected.append(layer.out_channels - len(gone))
    masked = copy.deepcopy(model)
    plan = shrink(model, torch.randn(2, 3, 32, 32))
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == expected
    assert plan.notes == ()
    x = torch.randn(2, 3, 32, 32)
    assert (run(masked, x) - run(model, x)).abs().max() <= 1e-5 * run(masked, x).abs().max()


def test_half_of_the_parameters_of_a_training_model_still_train() -> None:
    """The shrunk model is an ordinary module: gradients, optimizer step, train mode."""
    torch.manual_seed(0)
    model = damage(build("builtin:resnet20"), sparsity=0.5).train()
    shrink(model, torch.randn(2, 3, 32, 32))
    assert model.training
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) > 40
