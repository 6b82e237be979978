"""The Erdős-Rényi kernel distribution: small layers stay dense, large ones pay."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compress.budget import check_minimum, keep_count


def erk_counts(
    shapes: Sequence[Sequence[int]], units: Sequence[int], sparsity: float, *, minimum: int = 0
) -> list[int]:
    """Units that each layer keeps: a share in proportion to Σ(dims) / Π(dims), at most all of them.

    The density of a layer with weight [n_out, n_in, k_h, k_w] is ε · (n_out + n_in + k_h + k_w) / (n_out n_in k_h k_w),
    ε such that exactly round((1 − q) · D) units live; a layer whose density would exceed 1 is dense and the others
    share what is left (Evci et al. 2020, RigL, section 3; Mocanu et al. 2018 for linear layers).

    Args:
        shapes: shape of each layer's weight.
        units: number of units of each layer.
        sparsity: fraction of all units to remove, q.
        minimum: units that every layer keeps at least.

    Raises:
        ValueError: the minimum does not fit into the budget.
    """
    check_minimum(units, sparsity, minimum)
    keep = keep_count(sum(units), sparsity)
    wanted = [sum(shape) / math.prod(shape) * count for shape, count in zip(shapes, units, strict=True)]
    least = [min(minimum, count) for count in units]
    counts = [float(count) for count in least]
    fixed = set[int]()
    while len(fixed) < len(units):
        free = [layer for layer in range(len(units)) if layer not in fixed]
        left = keep - sum(counts[layer] for layer in fixed)
        factor = left / sum(wanted[layer] for layer in free)
        above = [layer for layer in free if factor * wanted[layer] > units[layer]]
        below = [layer for layer in free if factor * wanted[layer] < least[layer]]
        for layer in free:
            counts[layer] = factor * wanted[layer]
        if not above and not below:
            break
        for layer in above or below:
            counts[layer] = float(units[layer] if above else least[layer])
            fixed.add(layer)
    whole = [math.floor(count + 1e-9) for count in counts]
    # Largest remainders first, so that the total is exact; among equal ones the earlier layer.
    order = sorted(range(len(units)), key=lambda layer: (whole[layer] - counts[layer], layer))
    for layer in order:
        if sum(whole) >= keep:
            break
        whole[layer] += whole[layer] < units[layer]
    for layer in sorted(range(len(units)), key=lambda layer: least[layer] - whole[layer]):
        # Layers that were dense before the minimum of others took its share: the largest give it back.
        whole[layer] -= min(whole[layer] - least[layer], max(0, sum(whole) - keep))
    return whole
