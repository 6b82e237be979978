"""Multiply-accumulates as torch counts them on the network itself, whatever the project's own cost model says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_WEIGHED = ("convolution", "mm", "addmm")


def count_macs(model: nn.Module, x: Tensor) -> int:
    """Of convolutions and of products with weights, for the first sample of the batch."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x[:1])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operator, count in counts.items() if str(operator).split(".")[1] in _WEIGHED) // 2
