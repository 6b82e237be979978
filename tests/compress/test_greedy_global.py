"""Suffix runs against whole runs, the Taylor slopes against formulas, and the global search against brute force."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from shrink_checks import set_norms
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from compress.greedy.copies import copied
from compress.greedy.discrepancy import DISCREPANCIES, cross_entropy, squared_error
from compress.greedy.gates import gated
from compress.greedy.global_steps import CANDIDATES, GlobalImitation
from compress.greedy.groups import find_groups
from compress.greedy.replay import Replay
from compress.greedy.thinning import scale_consumers
from compress_then_export.models import build


def small(last: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 6, 3), nn.Flatten(), nn.Linear(6 * 9, last),
    ).double()  # fmt: skip


def batches(*shape: int, count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, *shape, generator=generator) for _ in range(count)]


class Branching(nn.Module):
    """Control flow that depends on values cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(F.relu(self.a(x)) if x.sum() < 1e9 else self.a(x))
        return y


class WorksInPlace(nn.Module):
    """What the second layer reads, or a view of it, is changed in place behind it."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        read = self.second(hidden)
        y: Tensor = self.third(self.change(hidden) + read)
        return y


@pytest.mark.parametrize(
    "change",
    [lambda h: h.mul_(0.5), lambda h: h.view(-1).relu_().view(6, -1), lambda h: F.relu(h, inplace=True), lambda h: h],
    ids=["tensor", "view", "function", "nothing"],
)
def test_every_run_begins_with_the_same_values(change: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, inputs = WorksInPlace(change), batches(4)
    with torch.no_grad():
        expected = [model(x.clone()) for x in inputs]
    replay = Replay(copy.deepcopy(model), inputs)
    assert replay.traced
    replay.advance(["second"])
    for number in (0, 0, 1, 1, 0):
        replay.run(number, until=["second"])
        torch.testing.assert_close(replay.run(number), expected[number])


def test_copies_share_what_the_originals_share() -> None:
    data = torch.randn(10, 4, 3)
    x = data[2:5]
    originals = {"x": x, "pair": (x.transpose(1, 2), x[:, 1::2]), "other": torch.randn(3), "empty": x[:, :0], "same": x}
    before = copy.deepcopy(originals)
    copies = copied(originals)
    torch.testing.assert_close(copies, originals, rtol=0, atol=0)
    assert [t.stride() for t in tree_leaves(copies)] == [t.stride() for t in tree_leaves(originals)]
    assert copies["x"].untyped_storage().nbytes() == 4 * x.numel()  # type: ignore[union-attr]
    for values in (originals, copies):
        values["pair"][1].mul_(2)  # type: ignore[index]
    torch.testing.assert_close(copies, originals, rtol=0, atol=0)
    assert not torch.equal(before["x"], x)  # type: ignore[arg-type]
    assert copies["x"]._version == copies["pair"][0]._version == 1  # type: ignore[union-attr, index]
    assert copies["other"]._version == 0  # type: ignore[union-attr]


class WritesToViews(nn.Module):
    """A view of a value is read again after something else wrote to the value, all behind the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.side = (
            nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 6),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        view = hidden.view(-1)
        read = self.second(F.relu(hidden))
        hidden.mul_(0.1)
        y: Tensor = self.third(F.relu(read) + F.relu(self.side(view.view(6, 6))))
        return y


def test_what_is_written_to_a_value_is_seen_in_its_views() -> None:
    torch.manual_seed(0)
    model, inputs = WritesToViews(), batches(4)
    with torch.no_grad():
        expected = [model(x.clone()) for x in inputs]
    replay = Replay(copy.deepcopy(model), inputs)
    replay.advance(["second"])
    assert replay.traced
    for number in (0, 0, 1, 1, 0):
        replay.run(number, until=["side"])
        torch.testing.assert_close(replay.run(number), expected[number])


@pytest.mark.parametrize("source", ["builtin:resnet20", "torchvision:mobilenet_v3_small", "torchvision:densenet121"])
def test_runs_from_every_cut_give_the_whole_network(source: str) -> None:
    torch.manual_seed(0)
    model = set_norms(build(source))
    inputs = batches(3, 32, 32)
    network = find_groups(model, inputs[0], streams=True)
    with torch.no_grad():
        expected = [model(x) for x in inputs]
    replay = Replay(copy.deepcopy(model), inputs)
    assert replay.traced
    for group in network.groups[:: max(1, len(network.groups) // 8)]:
        replay.advance(group.consumers)
        with torch.no_grad():
            for _ in range(2):  # twice: the first run leaves nothing behind
                assert all(torch.allclose(replay.run(n), expected[n], atol=1e-5) for n in range(2))
    calls: list[str] = []
    for name, module in replay.model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    replay.run(0)
    before = {
        n for n, place in network.calls.order.items() if place < min(network.calls.order[c] for c in group.consumers)
    }
    assert before
    assert not before & set(calls)
    assert calls
    calls.clear()
    assert replay.run(0, until=group.consumers) is None
    assert set(group.consumers) <= set(calls)
    assert calls[-1] in group.consumers


def test_scaled_weights_are_seen_and_the_prefix_is_kept_as_it_was() -> None:
    model = small()
    inputs = [x.double() for x in batches(2, 5, 5)]
    first, second = find_groups(model.float(), inputs[0].float()).groups[:2]
    model.double()
    replay = Replay(copy.deepcopy(model), inputs)
    replay.advance(first.consumers)
    for group in (first, second):
        factors = np.linspace(0, 2, group.units)
        scale_consumers(replay.model, group, factors)
        scale_consumers(model, group, factors)
        replay.advance(group.consumers)
        with torch.no_grad():
            assert torch.allclose(replay.run(1), model(inputs[1]), atol=1e-12)


def test_what_cannot_be_traced_runs_whole() -> None:
    model, inputs = Branching(), batches(4)
    replay = Replay(copy.deepcopy(model), inputs)
    assert not replay.traced
    replay.advance(["b"])
    assert torch.equal(replay.run(1), model(inputs[1]))


class Optional(Branching):
    """Control flow that depends on what nobody gives."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, mode: str = "deep", scales: Sequence[float] = (1, 2)
    ) -> Tensor:
        x = F.relu(self.a(x)) if mode == "deep" and not rest else self.a(x)
        y: Tensor = scales[1] * self.b(x if mask is None else x * mask)
        return y


def test_further_parameters_have_their_defaults() -> None:
    model, inputs = Optional(), batches(4)
    calls: list[str] = []
    replay = Replay(copy.deepcopy(model), inputs)
    replay.model.a.register_forward_hook(lambda *_: calls.append("a"))  # type: ignore[union-attr]
    assert replay.traced
    replay.advance(["b"])
    calls.clear()
    for number in (0, 1, 0):
        assert torch.equal(replay.run(number), model(inputs[number]))
    assert not calls


def search(
    model: nn.Module, inputs: list[Tensor], *, name: str = "squared", exact_size: int = 0, place: int = 1
) -> GlobalImitation:
    group = find_groups(copy.deepcopy(model).float(), inputs[0].float()).groups[place]
    with torch.no_grad():
        full = [model(x) for x in inputs]
    replay = Replay(copy.deepcopy(model), inputs)
    replay.advance(group.consumers)
    return GlobalImitation(replay, group, full, DISCREPANCIES[name], exact_size=exact_size, seed=0)


def shares(units: int, chosen: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    a = np.zeros(units)
    a[rng.choice(units, chosen, replace=False)] = rng.random(chosen)
    return a / a.sum()


def test_slopes_of_a_quadratic_discrepancy_are_minus_two_p() -> None:
    """Behind the layer all is linear, so D = ‖f − F‖² with s_i taken at the output: c_i = −2 p_i = −2 ⟨F − f, s_i⟩."""
    model = small()
    x = batches(2, 5, 5, count=1)[0].double()
    found = search(model, [x])
    with torch.no_grad():
        hidden = model[:4](x)
        tail, units = model[4:], hidden.shape[1]
        zero = tail(torch.zeros_like(hidden))
        s = torch.stack(
            [units * (tail(hidden * (torch.arange(units) == i)[:, None, None]) - zero) for i in range(units)]
        )
        a = torch.from_numpy(shares(units))
        difference = s.mean(0) - torch.einsum("i,inc->nc", a, s)  # F − f
        p = (s * difference).flatten(1).sum(1) / len(x)
    expected = -2 * (p - a @ p)
    assert np.allclose(found.slopes(a.numpy(), 0), expected.numpy(), rtol=1e-5, atol=1e-7 * float(expected.abs().max()))


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_slopes_are_derivatives_of_a_step(name: str) -> None:
    """The first group: non-linear layers lie behind it."""
    model, inputs = small(), [x.double() for x in batches(2, 5, 5)]
    found = search(model, inputs, name=name, place=0)
    a, gamma = shares(5, 3), 1e-6
    slopes = found.slopes(a, 1)
    with gated(found.replay.model, found.group) as gates:
        for i in range(5):
            values = []
            for step in (gamma, -gamma):
                gates.factors = torch.from_numpy(5 * ((1 - step) * a + step * np.eye(5)[i]))
                values.append(float(found.discrepancy(found.replay.run(1), found.full[1])))
            assert slopes[i] == pytest.approx(
                (values[0] - values[1]) / (2 * gamma), rel=1e-3, abs=1e-4 * abs(slopes).max()
            )


def test_exact_steps_are_those_of_trying_every_neuron() -> None:
    model, x = small(), batches(2, 5, 5, count=1)[0].double()
    found = search(model, [x], exact_size=12)
    path = list(islice(found.steps(0), 5))
    full = model(x).detach()
    taken: list[int] = []
    for a, value in path:
        tries = {}
        for i in range(12):
            mean = np.bincount([*taken, i], minlength=12) / (len(taken) + 1)
            masked = copy.deepcopy(model)
            scale_consumers(masked, found.group, 12 * mean)
            tries[i] = float(squared_error(masked(x).detach(), full))
        taken.append(min(tries, key=lambda i: tries[i]))
        assert np.allclose(a, np.bincount(taken, minlength=12) / len(taken))
        assert value == pytest.approx(min(tries.values()), rel=1e-4)
    assert found.backwards == 0


def test_taylor_tries_five_and_ends_about_as_well() -> None:
    model, inputs = small(), [x.double() for x in batches(2, 5, 5)]
    exact, quick = search(model, inputs, exact_size=12), search(model, inputs)
    first = int(np.argmax(next(exact.steps(0))[0]))
    ends = [list(islice(one.steps(first), 20))[-1][1] for one in (exact, quick)]
    assert quick.backwards == 19
    assert quick.forwards == 1 + 19 * CANDIDATES
    assert ends[1] < 2 * ends[0]
    mixed = search(model, inputs, exact_size=3)
    states = list(islice(mixed.steps(0), 12))
    assert mixed.backwards == sum(np.count_nonzero(a) > 3 for a, _ in states[:-1]) > 0


def test_discrepancies() -> None:
    full, found = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    assert float(squared_error(found, full)) == pytest.approx(float(((found - full) ** 2).sum() / 4))
    probabilities = full.softmax(1)
    entropy = -(probabilities * probabilities.log()).sum(1)
    expected = (-(probabilities * found.log_softmax(1)).sum(1) - entropy).mean()
    assert float(cross_entropy(found, full)) == pytest.approx(float(expected))
    assert float(cross_entropy(full, full)) == pytest.approx(0, abs=1e-12)
    assert cross_entropy(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)).dim() == 0
