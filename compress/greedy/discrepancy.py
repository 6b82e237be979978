"""How far the outputs of a pruned network are from those of the full one (Ye et al. 2020, section 2)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Discrepancy = Callable[[Tensor, Tensor], Tensor]


def squared_error(found: Tensor, full: Tensor) -> Tensor:
    """D = E‖f_A(x) − F(x)‖²: a sum over outputs, a mean over samples."""
    return (found - full).square().flatten(1).sum(1).mean()


def cross_entropy(found: Tensor, full: Tensor) -> Tensor:
    """Cross-entropy of the pruned network's classes under those of the full one, less its least value: 0 when equal.

    Classes are in dimension 1; a mean over samples.
    """
    if found.dim() > 2:
        found, full = found.movedim(1, -1).flatten(0, -2), full.movedim(1, -1).flatten(0, -2)
    log_found, log_full = functional.log_softmax(found, dim=1), functional.log_softmax(full, dim=1)
    return functional.kl_div(log_found, log_full, reduction="batchmean", log_target=True)


DISCREPANCIES: dict[str, Discrepancy] = {"cross_entropy": cross_entropy, "squared": squared_error}
