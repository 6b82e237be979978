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


def comparable(outputs: object, discrepancy: str) -> Tensor:
    """What a model returned for a batch, where imitation can compare it.

    Args:
        outputs: the model's.
        discrepancy: one of `DISCREPANCIES`.

    Raises:
        ValueError: it is no tensor [samples, outputs, ...] of finite floating-point numbers, or has a single output
            under cross-entropy.
    """
    if not isinstance(outputs, Tensor):
        raise ValueError(f"model: it returns {type(outputs).__name__}; imitation compares one tensor of outputs")
    if outputs.dim() < 2:
        raise ValueError(f"model: its outputs have shape {list(outputs.shape)}; imitation compares [samples, outputs]")
    if not outputs.is_floating_point():
        kind = str(outputs.dtype).removeprefix("torch.")
        raise ValueError(f"model: its outputs are {kind}; imitation compares floating-point numbers such as logits")
    if not bool(outputs.isfinite().all()):
        raise ValueError("model: its outputs are NaN or infinite on the calibration data")
    if discrepancy == "cross_entropy" and outputs.shape[1] == 1:
        raise ValueError("discrepancy: cross_entropy of a single output is always 0; use squared")
    return outputs
