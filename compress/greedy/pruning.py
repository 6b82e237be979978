"""The whole search on one model: groups, widths that meet the target, algorithm 2, and the plan that cuts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from compress.attention import closed_attention, opened_copy
from compress.greedy.allocation import Allowed, descend, first_within, hull
from compress.greedy.costs import COSTS, Cost, Costs
from compress.greedy.curves import Curve, measure_curve
from compress.greedy.finished import Finished, fingerprint
from compress.greedy.groups import ChannelGroup, Network, find_groups
from compress.greedy.layerwise import Layerwise, Search, ThinnedGroup
from compress.greedy.local import Imitation
from compress.greedy.thinning import Thinned, scale_consumers, scales, shrink_plan
from compress.greedy.trial import difference, proven
from compress.shrink import ShrinkPlan

log = logging.getLogger(__name__)
Pair = tuple[Tensor, Tensor]

TARGETS = ("macs", "parameters", "size", "width", "loss_gap", "accuracy_drop")


@dataclass(frozen=True, kw_only=True)
class Target:
    """When to stop: `kind` is one of `TARGETS`, its value as in `GreedyImitation`."""

    kind: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The result: the plan to apply, every group's fate, and what is left of each cost as a fraction."""

    plan: ShrinkPlan
    groups: Mapping[str, ThinnedGroup]
    left: Mapping[Cost, float]


class GreedyPruning:
    """Everything about one model that the search needs. The model itself is never changed.

    Args:
        model: a plain model, trained.
        calibration: (inputs, labels) batches for the statistics, on the model's device.
        held_out: further batches, for the accuracy; may be empty for other targets.
        target: when to stop.
        search: how units are searched.
        streams, exclude: which groups; see `find_groups`.
        round_to: widths are multiples of this many channels, where more are not needed.

    Raises:
        ValueError: data or model do not fit, or nothing can be thinned; the message says why.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration: Sequence[Pair],
        held_out: Sequence[Pair],
        *,
        target: Target,
        search: Search,
        streams: bool = False,
        exclude: Sequence[str] = (),
        round_to: int = 1,
    ) -> None:
        self.calibration, self.held_out = list(calibration), list(held_out)
        self.model = opened_copy(model, self.calibration[0][0])
        self.target, self.search = target, search
        self.round_to = round_to
        example = self.calibration[0][0]
        network = proven(self.model, find_groups(self.model, example, streams=streams, exclude=exclude), example)
        narrow = {group.name for group in network.groups if len(self._allowed(group, network).widths()) < 2}
        self.network = replace(
            network,
            groups=tuple(group for group in network.groups if group.name not in narrow),
            left_out={
                **network.left_out,
                **closed_attention(self.model),
                **dict.fromkeys(sorted(narrow), f"no multiple of {round_to} channels is below its width"),
            },
        )
        if not self.network.groups:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.network.left_out.items())[:5])
            raise ValueError(f"model: none of its channel groups can be thinned ({reasons})")
        self.groups = self.network.groups
        self.allowed = [self._allowed(group, self.network) for group in self.groups]
        self.choices = [allowed.widths() for allowed in self.allowed]
        self.costs = Costs(self.model, self.network)

    def check_target(self) -> None:
        """Raise ValueError where a bound on a cost is out of reach whatever is kept; the message says what is not."""
        for kind in COSTS:
            if kind == self.target.kind:
                narrowest = [widths[0] for widths in self.choices]
                first_within([narrowest], self.costs, kind, self.target.value, self.choices)

    def run(self, folder: Path | None = None) -> Pruned:
        """Search.

        Args:
            folder: where finished groups are kept; a search that finds its own there goes on with them.

        Raises:
            ValueError: the target cannot be met; the message says the best that could.
            OSError: the folder cannot be written.
        """
        self.check_target()
        tensors = [tensor for pair in (*self.calibration, *self.held_out) for tensor in pair]
        settings = f"{self.target} {self.search} {self.round_to} {[(g.name, g.units) for g in self.groups]}"
        finished = Finished(folder, fingerprint(self.model, tensors, settings))
        if self.target.kind == "loss_gap":
            return self._pruned(self._thin(finished, None))
        if self.target.kind == "accuracy_drop":
            return self._within_accuracy(finished)
        return self._pruned(self._thin(finished, self._widths(finished)))

    def _widths(self, finished: Finished) -> list[int]:
        for kind in COSTS:
            if kind == self.target.kind:
                path = self._path(self._curves(finished), kind)
                return first_within(path, self.costs, kind, self.target.value, self.choices)
        wanted = [self.target.value * group.units for group in self.groups]
        pairs = zip(self.choices, wanted, strict=True)
        return [max([w for w in widths if w <= most + 1e-9] or widths[:1]) for widths, most in pairs]

    def _curves(self, finished: Finished) -> list[Curve]:
        curves: list[Curve] = []
        layerwise: Layerwise | None = None
        for number, (group, allowed) in self._progress("widths"):
            stored = finished.get(f"curve-{number:03d}")
            if stored is None:
                layerwise = layerwise or Layerwise(self.model, self.calibration, self.search)
                curve = measure_curve(layerwise, group, allowed)
                finished.put(f"curve-{number:03d}", curve.to_arrays())
            else:
                curve = Curve.from_arrays(stored)
            curves.append(curve)
        return curves

    def _path(self, curves: Sequence[Curve], cost: Cost) -> list[list[int]]:
        hulls = [hull(curve.discrepancies, widths) for curve, widths in zip(curves, self.choices, strict=True)]
        return descend(self.costs, cost, hulls)

    def _thin(self, finished: Finished, widths: Sequence[int] | None, prefix: str = "group") -> list[ThinnedGroup]:
        """Algorithm 2: to the given widths, or as far as the loss gap allows."""
        layerwise = Layerwise(self.model, self.calibration, self.search)
        found: list[ThinnedGroup] = []
        for number, (group, allowed) in self._progress("channels"):
            name = f"{prefix}-{number:03d}"
            stored = finished.get(name)
            layerwise.advance(group)
            if stored is not None:
                thinned = ThinnedGroup.from_arrays(stored)
            elif widths is None:
                thinned = layerwise.thin_within(group, self.target.value, allowed, number)
            elif widths[number] < group.units:
                thinned = layerwise.thin_to(group, widths[number], number)
            else:
                thinned = ThinnedGroup(imitation=None, search="whole", discrepancy=float("nan"))
            if stored is None:
                finished.put(name, thinned.to_arrays())
            if thinned.imitation is not None:
                layerwise.settle(group, thinned.imitation)
            found.append(thinned)
            kept = group.units if thinned.imitation is None else thinned.imitation.size
            log.info(
                "%s: %d of %d channels, %s, local error %.3g, at the output %.3g",
                group.name,
                kept,
                group.units,
                thinned.search,
                thinned.imitation.discrepancy if thinned.imitation else 0.0,
                thinned.discrepancy,
            )
        return found

    def _within_accuracy(self, finished: Finished) -> Pruned:
        """The narrowest network on the path of widths whose accuracy on held-out batches drops by so few points.

        Found by bisection with the imitations of the whole network, which algorithm 2 then searches anew; should the
        result miss the bound after all, it goes back half of the way to the whole network until it holds.
        """
        curves = self._curves(finished)
        path = self._path(curves, "macs")
        whole = self._accuracy([])

        def drop(thinned: Thinned) -> float:
            return 100 * (whole - self._accuracy(thinned))

        low, high = 0, len(path)
        while high - low > 1:
            middle = (low + high) // 2
            kept = [
                (group, curve.imitations[width])
                for group, curve, width in zip(self.groups, curves, path[middle], strict=True)
                if width < group.units
            ]
            good = drop(kept) <= self.target.value
            low, high = (middle, high) if good else (low, middle)
        while low > 0:
            found = self._thin(finished, path[low], prefix=f"path-{low:04d}")
            if drop(self._thinned(found)) <= self.target.value:
                return self._pruned(found)
            low //= 2
        least = drop(self._thinned(self._thin(finished, path[1], prefix="path-0001")))
        raise ValueError(
            f"accuracy_drop: {self.target.value} points cannot be met; the widest thinner network loses {least:.2f} "
            f"of {100 * whole:.2f} % on {sum(len(y) for _, y in self.held_out)} held-out samples"
        )

    @torch.no_grad()
    def _accuracy(self, thinned: Thinned) -> float:
        masked = copy.deepcopy(self.model)
        for group, imitation in thinned:
            scale_consumers(masked, group, scales(group, imitation))
        correct = sum(int((masked(x).argmax(dim=1) == y).sum()) for x, y in self.held_out)
        return correct / sum(len(y) for _, y in self.held_out)

    def _thinned(self, found: Sequence[ThinnedGroup]) -> list[tuple[ChannelGroup, Imitation]]:
        pairs = zip(self.groups, found, strict=True)
        return [(group, one.imitation) for group, one in pairs if one.imitation is not None]

    def _pruned(self, found: Sequence[ThinnedGroup]) -> Pruned:
        thinned = self._thinned(found)
        plan = shrink_plan(self.model, self.network, thinned)
        probe = self.calibration[0][0][:2].double()
        distance = difference(copy.deepcopy(self.model).double(), self.network, thinned, probe)
        if distance > 1e-9:
            raise ValueError(
                f"model: cut, its outputs differ by {distance:.1e} from those scaled and masked; please report this"
            )
        widths = [
            g.units if one.imitation is None else one.imitation.size for g, one in zip(self.groups, found, strict=True)
        ]
        notes = tuple(f"{name}: its channels stay, {reason}" for name, reason in self.network.left_out.items())
        return Pruned(
            plan=replace(plan, notes=notes, difference=distance),
            groups={group.name: one for group, one in zip(self.groups, found, strict=True)},
            left={cost: self.costs.fraction(cost, widths) for cost in COSTS},
        )

    def _progress(self, label: str) -> Iterator[tuple[int, tuple[ChannelGroup, Allowed]]]:
        pairs = list(enumerate(zip(self.groups, self.allowed, strict=True)))
        with logging_redirect_tqdm():
            yield from tqdm(pairs, desc=label, unit="group", disable=None, leave=False)

    def _allowed(self, group: ChannelGroup, network: Network) -> Allowed:
        """Widths by the channels that a unit has in the first layer that produces it."""
        producer = group.name.split(" (")[0]
        channels = int(np.isin(network.channels.outputs[producer], group.atoms[0]).sum())
        return Allowed(units=group.units, channels=max(channels, 1), round_to=self.round_to)
