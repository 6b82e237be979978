"""The whole search on one model: groups, widths that meet the target, algorithm 2, and the plan that cuts."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from compress.attention import closed_attention, opened_copy
from compress.greedy.allocation import Allowed, Bounds, descend, first_within, hull
from compress.greedy.costs import COSTS, Costs
from compress.greedy.curves import Curve, measure_curve
from compress.greedy.discrepancy import comparable
from compress.greedy.finished import Finished, fingerprint
from compress.greedy.groups import ChannelGroup, Network, find_groups
from compress.greedy.labels import check_labels
from compress.greedy.latency import Latency, Stopwatch
from compress.greedy.layerwise import Layerwise, Search, ThinnedGroup
from compress.greedy.refit import Weights
from compress.greedy.target import LABELLED, Target
from compress.greedy.thinning import Thinned, settle, shrink_plan
from compress.greedy.trial import in_float64, proven, relative_difference
from compress.shrink import ShrinkPlan, apply_plan

log = logging.getLogger(__name__)
Pair = tuple[Tensor, Tensor]

ROUNDINGS = (1, 4, 8, 16, 32)
_FASTER = 0.98  # a coarser rounding must lower the latency by this factor, since it costs discrepancy


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The result: the plan to apply, every group's fate, and what is left of each cost as a fraction.

    weights: refitted ones of consumers at their original size, which the model takes before it is cut.
    """

    plan: ShrinkPlan
    weights: Weights
    groups: Mapping[str, ThinnedGroup]
    left: Mapping[str, float]


class GreedyPruning:
    """Everything about one model that the search needs. The model itself is never changed.

    Args:
        model: a plain model, trained.
        calibration: (inputs, labels) batches for the statistics, on the model's device.
        held_out: further batches, for the accuracy; may be empty for other targets.
        target: when to stop.
        search: how units are searched.
        streams, exclude: which groups; see `find_groups`.
        round_to: widths are multiples of this many channels, where more are not needed; None: of as many of `ROUNDINGS`
            as make the network fastest at the target.
        stopwatch: times networks, for the target latency and for that choice.

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
        round_to: int | None = 1,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.calibration, self.held_out = list(calibration), list(held_out)
        self.model = opened_copy(model, self.calibration[0][0])
        self.target, self.search = target, search
        self.round_to = round_to
        example = self.calibration[0][0]
        network = find_groups(self.model, example, streams=streams, exclude=exclude)
        with torch.no_grad():
            outputs = comparable(self.model(example.clone()), search.discrepancy)
        if target.kind in LABELLED:
            check_labels(outputs, [*self.calibration, *self.held_out])
        network = proven(self.model, network, example)
        finest = [_allowed(group, network, round_to or 1) for group in network.groups]
        narrow = {group.name for group, one in zip(network.groups, finest, strict=True) if len(one.widths()) < 2}
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
            culprit = "exclude" if "excluded" in self.network.left_out.values() else "round_to" if narrow else "model"
            raise ValueError(f"{culprit}: none of its channel groups can be thinned ({reasons})")
        self.groups = self.network.groups
        self.allowed = [_allowed(group, self.network, round_to or 1) for group in self.groups]
        self.costs = Costs(self.model, self.network)
        timed = target.kind == "latency" or round_to is None
        if timed and stopwatch is None:
            raise ValueError(
                "latency: networks must be timed, for this target and for round_to auto; recipes bring a stopwatch, in "
                "Python GreedyImitation(...).timed_by(stopwatch) takes one"
            )
        self.latency = Latency(self.model, self.network, stopwatch) if timed and stopwatch is not None else None

    def check_target(self) -> None:
        """Raise ValueError where a bound on a cost is out of reach whatever is kept; the message says what is not."""
        choices = self._choices(self.round_to or 1)
        narrowest = [widths[0] for widths in choices]
        if self.target.kind == "latency" and self.latency is not None:
            self.latency.widest_within([narrowest], self.costs, self.target.value)
        if self.target.kind in COSTS:
            first_within([narrowest], self.costs, self.target.bounds)

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
        groups, clock = [(g.name, g.units) for g in self.groups], self.latency and self.latency.stopwatch
        settings = f"{self.target} {self.search} {self.round_to} {groups} {clock}"
        finished = Finished(folder, fingerprint(self.model, tensors, settings))
        if self.target.kind == "loss_gap":
            return self._pruned(self._thin(finished, None))
        if self.target.kind == "accuracy_drop":
            return self._within_accuracy(finished)
        return self._pruned(self._thin(finished, self._widths(finished)))

    def _widths(self, finished: Finished) -> list[int]:
        """Those that meet the target; kept, because measurements differ from one time to the next."""
        stored = finished.get("widths")
        if stored is None:
            curves = [] if self.target.kind == "width" else self._curves(finished)
            rounding = self.round_to or self._fastest_rounding(curves)
            stored = {"widths": np.array(self._meeting(self.target, curves, rounding))}
            finished.put("widths", stored)
        return [int(width) for width in stored["widths"]]

    def _meeting(self, target: Target, curves: Sequence[Curve], rounding: int) -> list[int]:
        choices = self._choices(rounding)
        if target.kind != "width":
            path = self._path(curves, target.bounds, choices)
            if target.kind == "latency" and self.latency is not None:
                return self.latency.widest_within(path, self.costs, target.value)
            return first_within(path, self.costs, target.bounds)
        pairs = zip(choices, (target.value * group.units for group in self.groups), strict=True)
        return [max([w for w in widths if w <= most + 1e-9] or widths[:1]) for widths, most in pairs]

    def _fastest_rounding(self, curves: Sequence[Curve]) -> int:
        """The one whose network is fastest at the target; for latency itself, at that fraction of the MACs."""
        assert self.latency is not None
        best, least = 1, np.inf
        target = replace(self.target, kind="macs") if self.target.kind == "latency" else self.target
        for rounding in ROUNDINGS:
            try:
                widths = self._meeting(target, curves, rounding)
            except ValueError:
                continue  # so coarse that the target is out of reach
            found = self.latency.of(widths)
            if found < _FASTER * least:
                best, least = rounding, found
        log.info("widths are multiples of %d channels", best)
        return best

    def _curves(self, finished: Finished) -> list[Curve]:
        curves: list[Curve] = []
        layerwise: Layerwise | None = None
        for number, (group, allowed) in self._progress("widths"):
            stored = finished.get(f"curve-{number:03d}")
            if stored is None:
                layerwise = layerwise or Layerwise(self.model, self.calibration, self.search)
                curve = measure_curve(layerwise, group, allowed)
                finished.put(f"curve-{number:03d}", curve.to_arrays())
                log.info("%s: discrepancy measured at several widths", group.name)
            else:
                curve = Curve.from_arrays(stored)
            curves.append(curve)
        return curves

    def _choices(self, rounding: int) -> list[list[int]]:
        return [_allowed(group, self.network, rounding).widths() for group in self.groups]

    def _path(self, curves: Sequence[Curve], bounds: Bounds, choices: Sequence[Sequence[int]]) -> list[list[int]]:
        hulls = [hull(curve.discrepancies, widths) for curve, widths in zip(curves, choices, strict=True)]
        return descend(self.costs, bounds, hulls, choices)

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
                layerwise.settle(group, thinned.imitation, thinned.weights)
            found.append(thinned)
            kept = group.units if thinned.imitation is None else thinned.imitation.size
            error = "" if thinned.imitation is None else f", local error {thinned.imitation.discrepancy:.3g}"
            error += "" if math.isnan(thinned.discrepancy) else f", at the output {thinned.discrepancy:.3g}"
            log.info("%s: %d of %d channels, %s%s", group.name, kept, group.units, thinned.search, error)
        return found

    def _within_accuracy(self, finished: Finished) -> Pruned:
        """The narrowest network on the path of widths whose accuracy on held-out batches drops by so few points.

        Found by bisection with the imitations of the whole network, which algorithm 2 then searches anew; should the
        result miss the bound after all, it goes back half of the way to the whole network until it holds. Scales
        foretell nothing of refitted weights: with `refit` every step of the bisection is a search of its own.
        """
        curves = self._curves(finished)
        path = self._path(curves, self.target.bounds, self._choices(self.round_to or 1))
        whole = self._accuracy(self.model)
        if 100 * whole <= self.target.value:
            raise ValueError(
                f"accuracy_drop: {self.target.value} points are no bound where the whole network is right on "
                f"{100 * whole:.2f} % of the held-out samples; give their labels, or a smaller drop"
            )

        def drop(masked: nn.Module) -> float:
            return 100 * (whole - self._accuracy(masked))

        def searched(place: int) -> list[ThinnedGroup]:
            return self._thin(finished, path[place], prefix=f"path-{place:04d}")

        low, high = 0, len(path)
        while high - low > 1:
            middle = (low + high) // 2
            triple = zip(self.groups, curves, path[middle], strict=True)
            estimate = [
                ThinnedGroup(
                    imitation=curve.imitations[width] if width < group.units else None, search="local", discrepancy=0.0
                )
                for group, curve, width in triple
            ]
            good = drop(self._masked(searched(middle) if self.search.refit else estimate)) <= self.target.value
            low, high = (middle, high) if good else (low, middle)
        while low > 0:
            found = searched(low)
            if drop(self._masked(found)) <= self.target.value:
                return self._pruned(found)
            low //= 2
        least = drop(self._masked(searched(1)))
        raise ValueError(
            f"accuracy_drop: {self.target.value} points cannot be met; the widest thinner network loses {least:.2f} "
            f"of {100 * whole:.2f} % on {sum(len(y) for _, y in self.held_out)} held-out samples"
        )

    @torch.no_grad()
    def _accuracy(self, masked: nn.Module) -> float:
        correct = sum(int((masked(x.clone()).argmax(dim=1) == y).sum()) for x, y in self.held_out)
        return correct / sum(y.numel() for _, y in self.held_out)

    def _masked(self, found: Sequence[ThinnedGroup], dtype: torch.dtype | None = None) -> nn.Module:
        """The scaled and masked network."""
        masked = copy.deepcopy(self.model).to(dtype).requires_grad_(False)
        for group, one in zip(self.groups, found, strict=True):
            if one.imitation is not None:
                settle(masked, group, one.imitation, one.weights)
        return masked

    def _pruned(self, found: Sequence[ThinnedGroup]) -> Pruned:
        pairs = zip(self.groups, found, strict=True)
        thinned: Thinned = [(group, one.imitation) for group, one in pairs if one.imitation is not None]
        refit = self.search.refit
        plan = shrink_plan(self.model, self.network, thinned, scaled=not refit)
        masked = self._masked(found).double() if refit else self._masked(found, torch.float64)
        readers = sorted({name for group, _ in thinned for name in group.consumers}) if refit else []
        weights = {name: masked.get_submodule(name).weight.detach() for name in readers}  # type: ignore[operator]
        cut = apply_plan(copy.deepcopy(masked if refit else self.model).double(), plan)
        example = in_float64(self.calibration[0][0][:2])
        with torch.no_grad():
            distance = relative_difference(masked(example.clone()), cut(example.clone()))
        if distance > 1e-9:
            raise ValueError(
                f"model: cut, its outputs differ by {distance:.1e} from those scaled and masked; please report this"
            )
        widths = [
            g.units if one.imitation is None else one.imitation.size for g, one in zip(self.groups, found, strict=True)
        ]
        left: dict[str, float] = {cost: self.costs.fraction(cost, widths) for cost in COSTS}
        if self.latency is not None:
            left["latency"] = self.latency.of(widths)
        notes = tuple(f"{name}: its channels stay, {reason}" for name, reason in self.network.left_out.items())
        return Pruned(
            plan=replace(plan, notes=notes, difference=distance),
            weights=weights,
            groups={group.name: one for group, one in zip(self.groups, found, strict=True)},
            left=left,
        )

    def _progress(self, label: str) -> Iterator[tuple[int, tuple[ChannelGroup, Allowed]]]:
        pairs = list(enumerate(zip(self.groups, self.allowed, strict=True)))
        with logging_redirect_tqdm():
            yield from tqdm(pairs, desc=label, unit="group", disable=None, leave=False)


def _allowed(group: ChannelGroup, network: Network, rounding: int) -> Allowed:
    """Widths by the channels that a unit has in the first layer that produces it."""
    producer = group.name.split(" (")[0]
    channels = int(np.isin(network.channels.outputs[producer], group.atoms[0]).sum())
    return Allowed(units=group.units, channels=max(channels, 1), round_to=rounding)
