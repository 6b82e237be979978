"""Algorithm 2 on small networks: what is measured, what is taken, and that it goes on where it stopped."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greedy_checks import choose, taught
from method_checks import batch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.greedy.allocation import Allowed
from compress.greedy.curves import Curve, measure_curve
from compress.greedy.discrepancy import cross_entropy
from compress.greedy.finished import Finished, fingerprint
from compress.greedy.groups import find_groups
from compress.greedy.layerwise import Layerwise, Search, ThinnedGroup
from compress.greedy.local import Imitation
from compress.greedy.pruning import GreedyPruning
from compress.greedy.target import Target
from compress.greedy.thinning import scale_consumers, scales
from compress.methods import GreedyImitation
from compress.shrink import apply_plan

DATA = [batch(number) for number in range(3)]


class TwoReaders(nn.Module):
    """One hidden layer that a 3x3 convolution and, pooled, a linear layer read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 4, 3, stride=2)
        self.head, self.side = nn.Linear(4, 5), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.first(x) * 3)
        y: Tensor = self.head(F.relu(self.second(x)).mean((2, 3))) + self.side(x.mean((2, 3)))
        return y


@torch.no_grad()
def test_the_local_discrepancy_is_the_relative_error_at_every_reader() -> None:
    torch.manual_seed(0)
    model = TwoReaders().eval()
    (group,) = [g for g in find_groups(model, DATA[0][0]).groups if g.name == "first"]
    layerwise = Layerwise(model, DATA, Search())
    layerwise.advance(group)
    path = layerwise.local(group, 9)
    x = torch.cat([inputs for inputs, _ in DATA])
    hidden = F.relu6(model.first(x) * 3).double()
    second, side = copy.deepcopy(model.second).double(), copy.deepcopy(model.side).double()
    full = second(hidden), side(hidden.mean((2, 3)))
    assert len(path) >= 5
    for size, imitation in path.items():
        factors = torch.from_numpy(10 * imitation.dense(10))[:, None, None]
        thin = second(hidden * factors), side((hidden * factors).mean((2, 3)))
        zero = second(hidden * 0), side((hidden * 0).mean((2, 3)))  # biases
        errors = [(a - b).square().sum() / (b - z).square().sum() for a, b, z in zip(thin, full, zero, strict=True)]
        assert imitation.discrepancy == pytest.approx(float(sum(errors)), rel=1e-4, abs=1e-7)
        assert imitation.size == size


@torch.no_grad()
def test_discrepancy_and_loss_are_those_of_the_scaled_network_behind_settled_groups() -> None:
    with torch.enable_grad():
        model = taught(DATA)
    groups = find_groups(model, DATA[0][0]).groups
    layerwise, masked, rng = Layerwise(model, DATA, Search()), copy.deepcopy(model), np.random.default_rng(0)
    for group in groups:
        layerwise.advance(group)
        imitation = choose(group, rng)
        scale_consumers(masked, group, scales(group, imitation))
        expected = [cross_entropy(masked(x), model(x)) for x, _ in DATA]
        losses = [F.cross_entropy(masked(x), y) for x, y in DATA]
        assert layerwise.discrepancy(group, imitation) == pytest.approx(float(sum(expected) / 3), rel=1e-4)
        assert layerwise.loss(group, imitation) == pytest.approx(float(sum(losses) / 3), rel=1e-4)
        layerwise.settle(group, imitation)
        assert layerwise.loss(group, None) == pytest.approx(float(sum(losses) / 3), rel=1e-4)


@pytest.mark.parametrize("width", [3, 6])
def test_both_takes_the_better_of_local_and_global(width: int) -> None:
    model = taught(DATA)
    group = find_groups(model, DATA[0][0]).groups[1]
    found = {}
    for imitation in ("local", "global", "both"):
        layerwise = Layerwise(model, DATA, Search(imitation=imitation))
        layerwise.advance(group)
        found[imitation] = layerwise.thin_to(group, width, 1)
        assert found[imitation].imitation is not None
        assert found[imitation].imitation.size <= width
    values = {name: layerwise.discrepancy(group, found[name].imitation) for name in ("local", "global")}
    assert found["both"].discrepancy == min(values.values())
    assert np.isnan(found["local"].discrepancy)
    assert found["both"].search == min(values, key=lambda name: values[name])
    rng = np.random.default_rng(0)
    random = [layerwise.discrepancy(group, choose(group, rng, width / group.units)) for _ in range(30)]
    assert found["both"].discrepancy < 0.5 * np.median(random)


@pytest.mark.parametrize("imitation", ["local", "global", "both"])
def test_the_loss_gap_bounds_every_group(imitation: str) -> None:
    model = taught(DATA)
    sizes = []
    for epsilon in (0.02, 0.3, 3.0):
        layerwise, kept = Layerwise(model, DATA, Search(imitation=imitation)), []
        for number, group in enumerate(find_groups(model, DATA[0][0]).groups):
            layerwise.advance(group)
            before = layerwise.loss(group, None)
            allowed = Allowed(units=group.units, channels=1, round_to=1)
            thinned = layerwise.thin_within(group, epsilon, allowed, number)
            kept.append(group.units if thinned.imitation is None else thinned.imitation.size)
            if thinned.imitation is not None:
                layerwise.settle(group, thinned.imitation)
                assert layerwise.loss(group, None) < before + epsilon
            else:
                assert thinned.search == "whole"
        sizes.append(sum(kept))
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] > sizes[2]


def test_both_keeps_fewer_units_within_the_gap() -> None:
    model = taught(DATA)
    group = find_groups(model, DATA[0][0]).groups[2]
    allowed = Allowed(units=group.units, channels=1, round_to=1)
    sizes = {}
    for imitation in ("local", "global", "both"):
        layerwise = Layerwise(model, DATA, Search(imitation=imitation))
        layerwise.advance(group)
        found = layerwise.thin_within(group, 0.2, allowed, 2).imitation
        sizes[imitation] = group.units if found is None else found.size
    assert sizes["both"] == min(sizes["local"], sizes["global"]) < group.units


def test_within_the_gap_widths_are_multiples() -> None:
    model = taught(DATA)
    for number, group in enumerate(find_groups(model, DATA[0][0]).groups):
        for imitation in ("local", "global"):
            layerwise = Layerwise(model, DATA, Search(imitation=imitation))
            layerwise.advance(group)
            allowed = Allowed(units=group.units, channels=1, round_to=4)
            found = layerwise.thin_within(group, 1.0, allowed, number)
            assert found.imitation is None or found.imitation.size in allowed.widths()


def test_a_curve_is_exact_where_it_was_measured_and_survives_a_file(tmp_path: Path) -> None:
    model = taught(DATA)
    group = find_groups(model, DATA[0][0]).groups[1]
    allowed = Allowed(units=group.units, channels=1, round_to=1)
    layerwise = Layerwise(model, DATA, Search())
    curve = measure_curve(layerwise, group, allowed)
    assert list(curve.imitations) == allowed.widths()[:-1]
    exact = {width: layerwise.discrepancy(group, one, batches=1) for width, one in curve.imitations.items()}
    noise = 2e-6 * max(exact.values())
    for width in (1, 11):
        assert curve.discrepancies[width] == pytest.approx(exact[width], rel=1e-6, abs=noise)
    logs = np.log(np.maximum([[exact[width], value] for width, value in curve.discrepancies.items()], noise))
    assert np.corrcoef(logs.T)[0, 1] > 0.9
    finished = Finished(tmp_path, "mark")
    finished.put("curve", curve.to_arrays())
    arrays = finished.get("curve")
    assert arrays is not None
    again = Curve.from_arrays(arrays)
    assert again.discrepancies == curve.discrepancies
    for width, one in curve.imitations.items():
        assert again.imitations[width].kept.tolist() == one.kept.tolist()
        assert again.imitations[width].shares.tolist() == one.shares.tolist()


def pruning(model: nn.Module, kind: str, value: float, **settings: Any) -> GreedyPruning:
    held_out = [batch(number) for number in range(10, 13)]
    return GreedyPruning(model, DATA, held_out, target=Target(kind=kind, value=value), search=Search(), **settings)


@pytest.mark.parametrize(
    ("kind", "value"), [("macs", 0.4), ("parameters", 0.35), ("size", 0.35), ("width", 0.5), ("loss_gap", 0.5)]
)
def test_a_search_that_was_killed_goes_on_where_it_was(
    kind: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = taught(DATA)
    whole = pruning(model, kind, value).run()
    calls: list[str] = []
    for name in ("thin_to", "thin_within"):
        original = getattr(Layerwise, name)

        def counted(self: Layerwise, group: Any, *rest: Any, original: Any = original) -> ThinnedGroup:
            calls.append(group.name)
            if len(calls) == 2:
                raise KeyboardInterrupt
            found: ThinnedGroup = original(self, group, *rest)
            return found

        monkeypatch.setattr(Layerwise, name, counted)
    with pytest.raises(KeyboardInterrupt):
        pruning(model, kind, value).run(tmp_path)
    (tmp_path / "group-001.partial").write_bytes(b"half a fi")  # as kill -9 leaves it
    resumed = pruning(model, kind, value).run(tmp_path)
    assert calls[2] == calls[1]
    assert calls[0] not in calls[1:]
    assert resumed.plan == whole.plan
    calls.append("no more interruptions")
    before = len(calls)
    assert pruning(model, kind, value).run(tmp_path).plan == whole.plan
    assert len(calls) == before
    with pytest.raises(ValueError, match=r"folder: .* holds another search"):
        pruning(model, kind, value * 0.9).run(tmp_path)


def test_a_search_of_the_same_weights_between_other_activations_is_another_one(tmp_path: Path) -> None:
    model, other = taught(DATA), taught(DATA)
    other[4] = nn.Sigmoid()  # type: ignore[index, operator]
    GreedyImitation(width=0.5).kept_in(tmp_path).attach(model, DATA)
    with pytest.raises(ValueError, match=r"folder: .* holds another search"):
        GreedyImitation(width=0.5).kept_in(tmp_path).attach(other, DATA)


def test_what_has_no_name_but_its_address_is_the_same_in_another_process() -> None:
    class Named(nn.Identity):
        def extra_repr(self) -> str:
            return object.__repr__(self)

    first, second = Named(), Named()
    assert repr(first) != repr(second)
    assert fingerprint(first, [], repr(first)) == fingerprint(second, [], repr(second))
    assert fingerprint(first, [], "") != fingerprint(nn.Identity(), [], "")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "search"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"folder: .*search is a file; give a folder"):
        GreedyImitation(width=0.5).kept_in(path)


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    finished = Finished(tmp_path, "mark")
    finished.put("group-000", {"kept": np.arange(3)})
    path = tmp_path / "group-000.npz"
    path.write_bytes(path.read_bytes()[:-20])
    assert finished.get("group-000") is None
    assert finished.get("group-001") is None
    assert Finished(None, "mark").get("group-000") is None


@pytest.mark.parametrize("kind", ["macs", "parameters", "size"])
def test_targets_are_met_and_not_overdone(kind: Any) -> None:
    model = taught(DATA)
    for value in (0.75, 0.4):
        search = pruning(model, kind, value)
        found = search.run()
        assert 0.7 * value <= found.left[kind] <= value
        cut = apply_plan(copy.deepcopy(model), found.plan)
        assert sum(p.numel() for p in cut.parameters()) / sum(p.numel() for p in model.parameters()) == pytest.approx(
            found.left["parameters"]
        )
        masked = copy.deepcopy(model)
        for group in search.groups:
            imitation = found.groups[group.name].imitation
            if imitation is not None:
                scale_consumers(masked, group, scales(group, imitation))
        x = torch.randn(4, 3, 8, 8)
        assert (cut(x) - masked(x)).abs().max() <= 1e-5 * masked(x).abs().max()


def test_accuracy_on_held_out_batches_decides() -> None:
    """The bound holds for the cut network."""
    model = taught(DATA)
    held_out = DATA  # learnt by heart, so that there is something to lose
    left = []
    for points in (0.0, 10.0, 60.0):
        search = GreedyPruning(
            model, DATA, held_out, target=Target(kind="accuracy_drop", value=points), search=Search()
        )
        found = search.run()
        cut = apply_plan(copy.deepcopy(model), found.plan)
        right = [sum(int((m(x).argmax(1) == y).sum()) for x, y in held_out) for m in (model, cut)]
        assert 100 * (right[0] - right[1]) / 24 <= points
        left.append(found.left["macs"])
    assert left[2] < 0.5


def test_identity_of_a_whole_group() -> None:
    """Shares 1/N at every unit are the network itself."""
    model = taught(DATA)
    group = find_groups(model, DATA[0][0]).groups[0]
    layerwise = Layerwise(model, DATA, Search(discrepancy="squared"))
    layerwise.advance(group)
    whole = Imitation(kept=np.arange(8), shares=np.full(8, 1 / 8), discrepancy=0.0)
    assert layerwise.discrepancy(group, whole) == pytest.approx(0, abs=1e-10)
