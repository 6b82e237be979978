"""What each width of a group would cost in discrepancy at the network's output, for the allocation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.greedy.allocation import Allowed
from compress.greedy.groups import ChannelGroup
from compress.greedy.layerwise import Layerwise
from compress.greedy.local import Imitation

_PROBES = 4
_NOISE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Width -> local imitation with that many units or fewer, and its discrepancy at the output."""

    imitations: Mapping[int, Imitation]
    discrepancies: Mapping[int, float]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For a file."""
        found = list(self.imitations.values())
        return {
            "widths": np.array(list(self.imitations), dtype=np.int64),
            "sizes": np.array([one.size for one in found], dtype=np.int64),
            "kept": np.concatenate([one.kept for one in found]),
            "shares": np.concatenate([one.shares for one in found]),
            "local": np.array([one.discrepancy for one in found]),
            "discrepancies": np.array([self.discrepancies[width] for width in self.imitations]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Curve:
        """From a file."""
        ends = np.cumsum(arrays["sizes"])[:-1]
        rows = zip(
            arrays["widths"].tolist(),
            np.split(arrays["kept"], ends),
            np.split(arrays["shares"], ends),
            arrays["local"].tolist(),
            strict=True,
        )
        imitations = {width: Imitation(kept=k, shares=s, discrepancy=d) for width, k, s, d in rows}
        return cls(
            imitations=imitations, discrepancies=dict(zip(imitations, arrays["discrepancies"].tolist(), strict=True))
        )


def measure_curve(layerwise: Layerwise, group: ChannelGroup, allowed: Allowed) -> Curve:
    """The curve of one group of the full network.

    The discrepancy at the output is measured at a few widths, on the first batch; between them it is the local one
    times a factor that is interpolated, both on logarithmic scales.
    """
    widths = allowed.widths()[:-1]
    layerwise.advance(group)
    path = layerwise.local(group, max(widths))
    imitations = {
        width: min((one for one in path.values() if one.size <= width), key=lambda one: one.discrepancy)
        for width in widths
    }
    local = np.maximum([one.discrepancy for one in imitations.values()], 1e-15)
    picked = np.unique(np.linspace(0, len(widths) - 1, _PROBES).round().astype(int))
    probes = [imitations[widths[place]] for place in picked]
    measured = [layerwise.discrepancy(group, one, layerwise.refit(group, one), batches=1) for one in probes]
    floor = max(1e-15, _NOISE * max(measured))  # below it float32 decides, and may come out negative
    factors = np.log(np.maximum(measured, floor) / local[picked])
    factor = np.interp(np.log(widths), np.log([widths[place] for place in picked]), factors)
    return Curve(imitations=imitations, discrepancies=dict(zip(widths, (local * np.exp(factor)).tolist(), strict=True)))
