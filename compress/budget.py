"""How many units live, and which: exact counts, ties broken by index.

A unit is what lives or dies as a whole: a single weight, a filter, a block (:mod:`compress.structures`). Scores are one
tensor a layer, one entry a unit; larger is more important.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Distribution = Literal["global", "layer", "erk"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("global", "layer", "erk")


def keep_count(total: int, sparsity: float) -> int:
    """round((1 − q) · D), the exact number of units that live."""
    return round((1.0 - sparsity) * total)


def top_mask(scores: Tensor, keep: int) -> Tensor:
    """Bool mask of the ``keep`` largest entries of ``scores``; among equal ones the lower index lives.

    Linear in time: a selection, no sort.

    Raises:
        ValueError: ``keep`` is out of range, or a score is NaN.
    """
    flat = scores.flatten()
    if not 0 <= keep <= flat.numel():
        raise ValueError(f"keep: {keep} is not between 0 and the {flat.numel()} scores")
    if keep == flat.numel():
        mask = torch.ones_like(flat, dtype=torch.bool)
    elif keep == 0:
        mask = torch.zeros_like(flat, dtype=torch.bool)
    else:
        threshold = kth_smallest(flat, flat.numel() - keep + 1)
        mask = flat > threshold
        missing = keep - int(torch.count_nonzero(mask))
        ties = torch.nonzero(flat == threshold).flatten()
        mask[ties[:missing]] = True
    # A selection orders NaN above everything, and NaN compares false: a NaN shows as a shortfall.
    if bool(torch.isnan(flat).any()):
        raise ValueError("scores: some are NaN; the weights or gradients they come from are not finite")
    return mask.view_as(scores)


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of ``values``, a vector, counted from 1.

    Of many values a sample says between which two it lies, and only those between are selected from. Numpy does that
    twice as fast as torch on a CPU, but has no bfloat16.
    """
    if values.numel() > _MANY:
        sample = values[::_STRIDE].sort().values
        share = k / values.numel()
        centre, margin = share * len(sample), 5 * math.sqrt(len(sample) * share * (1 - share)) + 8
        low, high = int(centre - margin), int(centre + margin)
        lower = sample[low] if low > 0 else values.new_tensor(-torch.inf)
        upper = sample[high] if high < len(sample) else values.new_tensor(torch.inf)
        below = int(torch.count_nonzero(values < lower))
        between = values[(values >= lower) & (values <= upper)]
        if below < k <= below + len(between) <= values.numel() // 2:
            return kth_smallest(between, k - below)
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:
        return torch.as_tensor(np.partition(values.detach().numpy(), k - 1)[k - 1], dtype=values.dtype)
    return torch.kthvalue(values, k).values


_MANY, _STRIDE = 1_000_000, 61


def check_budget(sizes: Sequence[int], sparsity: float, minimum: int) -> None:
    """Raise ValueError unless layers of ``sizes`` units can be cut to this sparsity, for good.

    Each keeps ``minimum`` of its units. A sparsity of exactly 1 may leave nothing, one below 1 may not round to it.
    """
    total = sum(sizes)
    if not keep_count(total, sparsity) and sparsity < 1:
        raise ValueError(f"sparsity: {sparsity} keeps none of {total} units; at most {1 - 1 / total:.6g} is possible")
    check_minimum(sizes, sparsity, minimum)


def check_minimum(sizes: Sequence[int], sparsity: float, minimum: int) -> None:
    """Raise ValueError unless layers of ``sizes`` units can each keep ``minimum`` of them at this sparsity."""
    total, needed = sum(sizes), sum(min(size, minimum) for size in sizes)
    keep = keep_count(total, sparsity)
    if needed > keep:
        raise ValueError(
            f"sparsity: {sparsity} keeps {keep} of {total} units, but {len(sizes)} layers with at least "
            f"{minimum} each need {needed}; at most {1 - needed / total:.4f} is possible, or a lower minimum_units"
        )


def allocate(
    scores: Sequence[Tensor],
    sparsity: float,
    *,
    distribution: Literal["global", "layer"] = "global",
    minimum: int = 0,
) -> list[Tensor]:
    """Bool masks, one a layer, that keep exactly round((1 − q) · D) units.

    Args:
        scores: importance, one tensor a layer.
        sparsity: fraction of units to remove, q.
        distribution: "global" ranks all layers together (one threshold); "layer" gives every layer the
            same sparsity, so the total is the sum of the layers' exact counts.
        minimum: units that every layer keeps at least (its best ones), within the same total.

    Raises:
        ValueError: the minimum does not fit into the budget.
    """
    if distribution == "layer":
        return [
            top_mask(score, min(score.numel(), max(minimum, keep_count(score.numel(), sparsity)))) for score in scores
        ]
    sizes = [score.numel() for score in scores]
    check_minimum(sizes, sparsity, minimum)
    keep = keep_count(sum(sizes), sparsity)
    reserved = [top_mask(score, min(minimum, score.numel())) for score in scores] if minimum else []
    flat = torch.cat([score.flatten() for score in scores])
    if reserved:
        flat = flat.masked_fill(torch.cat([mask.flatten() for mask in reserved]), torch.inf)
    masks = torch.split(top_mask(flat, keep), sizes)
    return [mask.view_as(score) for mask, score in zip(masks, scores, strict=True)]
