"""Projections by one threshold: shift every entry by λ, clip, and choose λ so that the sum is right."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_sum(values: Tensor, total: float, cap: float) -> Tensor:
    """min(max(values − λ, 0), cap) with the λ at which the entries sum to ``total``; exact, in O(n log n).

    The sum falls piecewise linearly in λ, with kinks at the values and at values − cap: find the two kinks around
    ``total`` and interpolate (Duchi et al. 2008 for cap = ∞).

    Args:
        values: [n].
        total: in (0, n · cap).
        cap: largest entry, positive; infinite for none.
    """
    if not values.numel():
        return values
    # Sums from the largest entry down, as distances to it: far larger numbers than ``total`` would swallow it.
    wide = values.double() - values.max()
    ordered, cumulated = wide.sort().values, torch.zeros(len(wide) + 1, dtype=torch.float64, device=wide.device)
    cumulated[:-1] = ordered.flip(0).cumsum(0).flip(0)

    def above(thresholds: Tensor) -> Tensor:
        """Σ max(values − λ, 0) for each λ."""
        first = torch.searchsorted(ordered, thresholds)
        return cumulated[first] - (len(ordered) - first) * thresholds

    def sums(thresholds: Tensor) -> Tensor:
        capped = above(thresholds)
        return capped if cap == float("inf") else capped - above(thresholds + cap)

    # Below the lowest kink of an uncapped sum it rises without end; this far is enough.
    lowest = ordered[:1] - (total / len(ordered) if cap == float("inf") else cap)
    kinks = ordered if cap == float("inf") else torch.cat([ordered, ordered - cap])
    kinks = torch.cat([lowest, kinks]).sort().values
    heights = sums(kinks)
    # The first kink at which the sum is no longer above; where it stays at the total, only up to rounding.
    right = max(1, int((heights <= total * (1 + 1e-12)).double().argmax()))
    left_sum, right_sum = heights[right - 1], heights[right]
    share = ((total - right_sum) / (left_sum - right_sum).clamp(min=1e-300)).clamp(0.0, 1.0)
    rise = share * (kinks[right] - kinks[right - 1])
    found = (wide - kinks[right] + rise).clamp(min=0.0, max=cap)
    # Where capped entries are far above ``total``, kinks are rounded by more than it can bear.
    return (found * (total / found.sum().clamp(min=total))).to(values.dtype)
