"""The refit against a solver of its own, and what it promises: never worse than the scales on the data it saw."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greedy_checks import choose, taught
from method_checks import batch, network, same
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.greedy import moments as moments_module
from compress.greedy import refit as refit_module
from compress.greedy.groups import ChannelGroup, find_groups
from compress.greedy.layerwise import Layerwise, Search
from compress.greedy.moments import Moments, patches
from compress.greedy.refit import refitted
from compress.greedy.thinning import scale_consumers, scales
from compress.methods import GreedyImitation
from compress.shrink import load_shrunk, save_shrunk

DATA = [batch(number) for number in range(3)]
READERS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "1x1": (nn.Conv2d(6, 4, 1), (5, 6, 4, 4), 1),
    "3x3, stride, padding, dilation": (nn.Conv2d(6, 5, 3, stride=2, padding=2, dilation=2), (6, 6, 8, 8), 1),
    "groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (5, 6, 6, 6), 1),
    "linear": (nn.Linear(6, 3), (40, 6), 1),
    "behind a flatten": (nn.Linear(24, 3), (80, 24), 4),
}


@pytest.mark.parametrize(("reader", "shape", "columns"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("ridge", [1e-9, 0.3])
def test_the_refit_solves_the_ridge_problem(
    reader: nn.Module, shape: tuple[int, ...], columns: int, ridge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against scipy's view of it: all rows stacked, one dense least-squares problem an output."""
    monkeypatch.setattr(refit_module, "RIDGE", ridge)
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(reader).double())
    places = np.arange(6 * columns).reshape(6, columns)
    group = ChannelGroup(name="x", atoms=np.arange(6)[:, None], consumers={"0": places}, stream=False)
    x = [torch.rand(shape, dtype=torch.float64) for _ in range(2)]
    taken = Moments(model[0], places)
    for one in x:
        taken.add(one)
    imitation = choose(group, np.random.default_rng(3))
    imitation = type(imitation)(kept=np.array([0, 2, 4]), shares=imitation.shares, discrepancy=0.0)
    found = refitted(model, group, {"0": taken}, imitation)["0"]
    scaled = copy.deepcopy(model)
    scale_consumers(scaled, group, scales(group, imitation))
    every = torch.arange(6 * columns)[None]
    rows = torch.cat([patches(model[0], one, every) for one in x]).unflatten(1, (-1, 6 * columns)).mT.numpy()
    groups = getattr(reader, "groups", 1)
    old, start, new = (w.detach().numpy().reshape(groups, -1, 6 * columns // groups, rows.shape[2])
                       for w in (model[0].weight, scaled[0].weight, found))  # fmt: skip
    for number in range(groups):
        width = 6 * columns // groups
        inside = [c for c in places[imitation.kept].ravel() if c // width == number]
        part = rows[:, number * width : (number + 1) * width]
        kept = part[:, [c - number * width for c in inside]].reshape(len(part), -1)
        target = part.reshape(len(part), -1) @ (old[number] - start[number]).reshape(len(old[number]), -1).T
        strength = ridge * np.square(kept).sum(0).mean()
        stacked = np.vstack([kept, np.sqrt(strength) * np.eye(kept.shape[1])])
        expected, *_ = np.linalg.lstsq(stacked, np.vstack([target, np.zeros((kept.shape[1], len(old[number])))]))
        got = (new[number] - start[number])[:, [c - number * width for c in inside]].reshape(len(old[number]), -1).T
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    gone = places[[1, 3, 5]].ravel()
    flat = new.transpose(1, 0, 2, 3).reshape(len(old[0]), 6 * columns, -1)
    assert (flat[:, gone] == 0).all()


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, of those made within the block and those they are views of."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.made += [weakref.ref(leaf) for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        alive = [tensor for one in self.made if (tensor := one()) is not None]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}
        self.bytes = max(self.bytes, sum(storages.values()))
        return found


def test_the_refit_holds_two_matrices_beside_the_moments() -> None:
    units = 300
    group = ChannelGroup(
        name="x", atoms=np.arange(units)[:, None], consumers={"0": np.arange(units)[:, None]}, stream=False
    )
    model = nn.Sequential(nn.Linear(units, 2))
    taken = Moments(model[0], group.consumers["0"])
    taken.add(torch.randn(400, units))
    imitation = choose(group, np.random.default_rng(0), 0.9)
    with Peak() as peak:
        refitted(model, group, {"0": taken}, imitation)
    moments, columns = 8 * units**2, 8 * units * imitation.size  # one offset: the covariance is whole
    assert 2 * columns < peak.bytes < 1.05 * (moments + 2 * columns)


@torch.no_grad()
def test_it_imitates_better_than_scales_and_a_trial_leaves_the_weights() -> None:
    with torch.enable_grad():
        model = taught(DATA)
    layerwise = Layerwise(model, DATA, Search(refit=True, discrepancy="squared"))
    for group in find_groups(model, DATA[0][0]).groups:
        layerwise.advance(group)
        path = layerwise.local(group, group.units // 2)
        one = path[max(path)]
        weights, before = layerwise.refit(group, one), copy.deepcopy(layerwise.replay.model)
        refit = layerwise.discrepancy(group, one, weights)
        assert same(layerwise.replay.model, before)
        assert refit < 0.5 * layerwise.discrepancy(group, one)
        layerwise.settle(group, one, weights)
        now = float(layerwise.measure(layerwise.replay.run(0), layerwise.full[0]))
        assert now == pytest.approx(layerwise.discrepancy(group, one, weights, batches=1), rel=1e-4)


@pytest.mark.parametrize("settings", [
    {"macs": 0.5}, {"width": 0.4, "imitation": "local"}, {"loss_gap": 0.2}, {"parameters": 0.5, "imitation": "global"},
    {"accuracy_drop": 50, "calibration_batches": 1, "held_out_batches": 1, "imitation": "local"},
], ids=lambda settings: next(iter(settings)))  # fmt: skip
def test_cut_it_computes_what_it_computes_masked_and_survives_files(settings: dict[str, float], tmp_path: Path) -> None:
    model, again = taught(DATA), taught(DATA)
    pruner = GreedyImitation(refit=True, **settings).kept_in(tmp_path / "search")  # type: ignore[arg-type]
    pruner.attach(model, DATA)
    plan = pruner.run.plan
    assert plan is not None
    assert plan.difference < 1e-9
    assert not any(cut.scales for cut in plan.layers.values())
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in again.parameters())
    save_shrunk(model, plan, tmp_path / "shrunk")
    assert same(load_shrunk(network(), tmp_path / "shrunk"), model)
    resumed = GreedyImitation(refit=True, **settings).kept_in(tmp_path / "search")  # type: ignore[arg-type]
    resumed.attach(again, DATA)
    assert same(again, model)


@torch.no_grad()
def test_the_refitted_network_is_nearer_to_the_whole_one() -> None:
    with torch.enable_grad():
        model = taught(DATA)
    x = torch.cat([inputs for inputs, _ in DATA])
    errors = {}
    for refit in (False, True):
        thin = copy.deepcopy(model)
        GreedyImitation(width=0.5, refit=refit, imitation="local").attach(thin, DATA)
        errors[refit] = float((thin(x) - model(x)).square().mean())
    assert errors[True] < 0.3 * errors[False]


def test_where_moments_do_not_fit_the_scales_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_module, "COVARIANCE_BYTES", 0)
    scaled, refit = taught(DATA), taught(DATA)
    GreedyImitation(width=0.5, imitation="local").attach(scaled, DATA)
    GreedyImitation(width=0.5, imitation="local", refit=True).attach(refit, DATA)
    x: Tensor = batch(7)[0]
    torch.testing.assert_close(refit(x), scaled(x), rtol=1e-4, atol=1e-5)


def test_channels_that_are_always_zero() -> None:
    """No second moments at all: nothing to solve, and no error."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.init.constant_(model[0].bias, -1e3)
    before = copy.deepcopy(model)
    data = [(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))]
    GreedyImitation(width=0.5, refit=True).attach(model, data)
    torch.testing.assert_close(model(data[0][0]), before(data[0][0]))
