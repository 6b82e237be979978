"""One layer after the other, from the input on (Ye et al. 2020, section 2.4, algorithm 2).

Every group is thinned on the network whose earlier groups are thinned already, by local and by global imitation with
the same stopping rule; the one that keeps fewer units is taken, and at the same number the one whose outputs are
closer to those of the full network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.greedy.allocation import Allowed
from compress.greedy.discrepancy import DISCREPANCIES, comparable
from compress.greedy.gates import gated
from compress.greedy.global_steps import GlobalImitation
from compress.greedy.groups import ChannelGroup
from compress.greedy.local import Imitation, Vector, imitate_locally
from compress.greedy.moments import Moments
from compress.greedy.refit import Weights, refitted
from compress.greedy.replay import Replay
from compress.greedy.thinning import scales, settle

IMITATIONS = ("both", "local", "global")
_STEPS_PER_UNIT = 4  # of global imitation; it only adds, and returns to units it has
_WEIGHT = "weight of "


@dataclass(frozen=True, kw_only=True)
class Search:
    """How units are searched.

    imitation: "both" as algorithm 2, or only "local" or "global".
    step: "line_search" or "fixed", of local imitation.
    discrepancy: "cross_entropy" or "squared", at the network's output.
    exact_size: global imitation tries every unit while at most this many are chosen, later the five best by Taylor.
    seed: of the batches that global imitation draws.
    refit: the consumers' weights are refitted by least squares, whatever the search; see `compress.greedy.refit`.
    """

    imitation: str = "both"
    step: str = "line_search"
    discrepancy: str = "cross_entropy"
    exact_size: int = 0
    seed: int = 0
    refit: bool = False


@dataclass(frozen=True, kw_only=True)
class ThinnedGroup:
    """What became of one group; its imitation is None where it stays whole.

    search: "local", "global" or "whole". discrepancy: at the output, on all calibration batches, where two imitations
    were compared; else NaN. weights: those of refitted consumers.
    """

    imitation: Imitation | None
    search: str
    discrepancy: float
    weights: Weights = field(default_factory=dict, repr=False)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For a file."""
        imitation = self.imitation
        return {
            "kept": np.zeros(0, dtype=np.int64) if imitation is None else imitation.kept,
            "shares": np.zeros(0) if imitation is None else imitation.shares,
            "local": np.array(0.0 if imitation is None else imitation.discrepancy),
            "search": np.array(self.search),
            "discrepancy": np.array(self.discrepancy),
            **{f"{_WEIGHT}{name}": _array(weight) for name, weight in self.weights.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ThinnedGroup:
        """From a file."""
        imitation = None
        if len(arrays["kept"]):
            imitation = Imitation(kept=arrays["kept"], shares=arrays["shares"], discrepancy=float(arrays["local"]))
        found = ((name.removeprefix(_WEIGHT), array) for name, array in arrays.items() if name.startswith(_WEIGHT))
        return cls(
            imitation=imitation,
            search=str(arrays["search"]),
            discrepancy=float(arrays["discrepancy"]),
            weights={name: torch.from_numpy(array) for name, array in found},
        )


def _array(weight: Tensor) -> NDArray[Any]:
    wide = weight.float() if weight.dtype == torch.bfloat16 else weight  # numpy has no bfloat16
    array: NDArray[Any] = wide.cpu().numpy()
    return array


class Layerwise:
    """A working copy of the model, thinned group by group.

    Args:
        model: the full network; it is not changed.
        batches: (inputs, labels) for calibration, on the model's device.
        search: how units are searched.

    Raises:
        ValueError: the model returns something that cannot be compared.
    """

    def __init__(self, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], search: Search) -> None:
        self.replay = Replay(copy.deepcopy(model), [inputs for inputs, _ in batches])
        self.labels = [labels for _, labels in batches]
        self.search = search
        self.measure = DISCREPANCIES[search.discrepancy]
        with torch.no_grad():
            rest = [self.replay.run(number) for number in range(1, len(batches))]
        self.full = [comparable(outputs, search.discrepancy) for outputs in (self.replay.first_output, *rest)]
        self._moments: dict[str, Moments] = {}

    def advance(self, group: ChannelGroup) -> None:
        """Go on to a group; those before it are settled."""
        self.replay.advance(group.consumers)

    def settle(self, group: ChannelGroup, imitation: Imitation, weights: Weights | None = None) -> None:
        """Scale and mask the group in the working copy, with the weights of its refit where there was one."""
        settle(self.replay.model, group, imitation, weights or {})

    def local(self, group: ChannelGroup, largest: int) -> dict[int, Imitation]:
        """Size -> local imitation, from one pass of the calibration data.

        With several consumers D̄ is the sum of their relative discrepancies ‖f − F‖² / ‖F‖²; with one, a multiple of
        the paper's.
        """
        moments = {
            name: Moments(self.replay.model.get_submodule(name), columns) for name, columns in group.consumers.items()
        }
        handles = [
            self.replay.model.get_submodule(name).register_forward_pre_hook(
                lambda _module, args, taken=taken: taken.add(args[0])
            )
            for name, taken in moments.items()
        ]
        try:
            with torch.no_grad():
                for number in range(len(self.full)):
                    self.replay.run(number, until=group.consumers)
        finally:
            for handle in handles:
                handle.remove()
        self._moments = moments if self.search.refit else {}
        units = group.units
        products, energy = np.zeros((units, units)), 0.0
        for taken in moments.values():
            found = taken.products()
            whole = found.sum()
            if whole > 0:
                products += found / whole
                energy += 1.0
        target = units * products.sum(axis=1)
        return imitate_locally(units**2 * products, target, energy, step=self.search.step, largest=largest)

    def refit(self, group: ChannelGroup, imitation: Imitation) -> Weights:
        """Weights of the consumers for this imitation of the group last given to `local`; none without `refit`."""
        return refitted(self.replay.model, group, self._moments, imitation)

    def discrepancy(
        self, group: ChannelGroup, imitation: Imitation, weights: Weights | None = None, *, batches: int | None = None
    ) -> float:
        """D between this network with the group thinned and the full one, on the first `batches` of all."""
        with self._tried(group, imitation, weights or {}):
            pairs = zip(self._outputs(batches), self.full[:batches], strict=True)
            return self._mean(float(self.measure(found, full)) for found, full in pairs)

    def loss(self, group: ChannelGroup, imitation: Imitation | None, weights: Weights | None = None) -> float:
        """Cross-entropy of this network on the labels, with the group thinned or as it is."""
        with self._tried(group, imitation, weights or {}):
            pairs = zip(self._outputs(), self.labels, strict=True)
            return self._mean(float(functional.cross_entropy(found, labels)) for found, labels in pairs)

    @contextmanager
    def _tried(self, group: ChannelGroup, imitation: Imitation | None, weights: Weights) -> Iterator[None]:
        """Within the block the group is thinned."""
        model = self.replay.model
        if weights and imitation is not None:
            kept = {name: model.get_submodule(name).weight.clone() for name in group.consumers}  # type: ignore[operator]
            try:
                settle(model, group, imitation, weights)
                yield
            finally:
                with torch.no_grad():
                    for name, weight in kept.items():
                        model.get_submodule(name).weight.copy_(weight)  # type: ignore[operator]
            return
        with gated(model, group) as gates:
            if imitation is not None:
                gates.factors = torch.from_numpy(scales(group, imitation))
            yield

    def thin_to(self, group: ChannelGroup, width: int, number: int) -> ThinnedGroup:
        """At most `width` units. `number` of the group keeps its random batches apart from those of others."""
        found: dict[str, Imitation] = {}
        path = self.local(group, 1 if self.search.imitation == "global" else width)
        if self.search.imitation != "global":
            found["local"] = min(path.values(), key=lambda one: one.discrepancy)
        if self.search.imitation != "local":
            found["global"] = self._global_to(group, width, int(path[1].kept[0]), number)
        candidates = self._compared(group, found)
        return min(candidates, key=lambda one: one.discrepancy)

    def thin_within(self, group: ChannelGroup, epsilon: float, allowed: Allowed, number: int) -> ThinnedGroup:
        """As few units as keep the loss on the labels within `epsilon` of what it was before this group was thinned.

        Of the allowed sizes of the local path the one is found by bisection, on the global one it is the first.
        """
        limit = self.loss(group, None) + epsilon
        widths = allowed.widths()[:-1]
        path = self.local(group, 1 if self.search.imitation == "global" else widths[-1])
        found: dict[str, Imitation] = {}
        if self.search.imitation != "global":
            sizes = sorted({size for size in path if size in widths} | {max(path)})
            low, high = -1, len(sizes)  # sizes[low] is too small; sizes[high] will do, or is the whole group
            while high - low > 1:
                middle = (low + high) // 2
                one = path[sizes[middle]]
                good = self.loss(group, one, self.refit(group, one)) < limit
                low, high = (low, middle) if good else (middle, high)
            if high < len(sizes):
                found["local"] = path[sizes[high]]
        if self.search.imitation != "local":
            within = self._global_within(group, limit, widths, int(path[1].kept[0]), number)
            if within is not None:
                found["global"] = within
        if not found:
            return ThinnedGroup(imitation=None, search="whole", discrepancy=math.nan)
        fewest = min(one.size for one in found.values())
        candidates = self._compared(group, {name: one for name, one in found.items() if one.size == fewest})
        return min(candidates, key=lambda one: one.discrepancy)

    def _compared(self, group: ChannelGroup, found: Mapping[str, Imitation]) -> list[ThinnedGroup]:
        """With discrepancies at the output; one alone needs none, and passes of the whole suffix take long."""
        candidates = []
        for name, imitation in found.items():
            weights = self.refit(group, imitation)
            value = math.nan if len(found) == 1 else self.discrepancy(group, imitation, weights)
            candidates.append(ThinnedGroup(imitation=imitation, search=name, discrepancy=value, weights=weights))
        return candidates

    def _global_to(self, group: ChannelGroup, width: int, first: int, number: int) -> Imitation:
        last: tuple[Vector, float] | None = None
        for count, state in enumerate(self._global_search(group, number).steps(first)):
            if np.count_nonzero(state[0]) > width or count > _STEPS_PER_UNIT * width:
                break
            last = state
        assert last is not None  # one unit is never too many
        return _imitation(*last)

    def _global_within(
        self, group: ChannelGroup, limit: float, widths: Sequence[int], first: int, number: int
    ) -> Imitation | None:
        measured = 0
        for count, (a, value) in enumerate(self._global_search(group, number).steps(first)):
            size = int(np.count_nonzero(a))
            if size > widths[-1] or count > _STEPS_PER_UNIT * group.units:
                return None
            if size > measured and size in widths:
                measured = size
                one = _imitation(a, value)
                if self.loss(group, one, self.refit(group, one)) < limit:
                    return one
        return None

    def _global_search(self, group: ChannelGroup, number: int) -> GlobalImitation:
        return GlobalImitation(
            self.replay,
            group,
            self.full,
            self.measure,
            exact_size=self.search.exact_size,
            seed=1000 * self.search.seed + number,
        )

    @torch.no_grad()
    def _outputs(self, batches: int | None = None) -> Iterable[Tensor]:
        for number in range(len(self.full[:batches])):
            yield self.replay.run(number)

    def _mean(self, values: Iterable[float]) -> float:
        """Mean over samples from means over the first batches."""
        means = list(values)
        return float(np.average(means, weights=[len(full) for full in self.full[: len(means)]]))


def _imitation(a: Vector, value: float) -> Imitation:
    kept = np.flatnonzero(a)
    return Imitation(kept=kept, shares=a[kept], discrepancy=value)
