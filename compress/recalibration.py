"""BatchNorm statistics measured anew on the model as it is now."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, limit: int = 100) -> int:
    """Replace the running mean and variance of every BatchNorm by their averages over ``batches``.

    Running statistics lag behind masks: a filter that just grew back still carries those of a dead one, and one
    cut at once leaves those of a network that is gone. Parameters, modes and the random state stay.

    Args:
        model: any module; nothing happens without a BatchNorm that keeps statistics.
        batches: (inputs, targets) pairs, inputs on any device.
        limit: batches used at most.

    Returns:
        The number of batches used.

    Raises:
        ValueError: there are no batches.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    used = 0
    with torch.random.fork_rng(devices=[]):
        try:
            model.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over the batches
                norm.train()
            for inputs, _ in islice(batches, limit):
                model(inputs.to(device))
                used += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for module, training in modes:
                module.training = training
    if used == 0:
        raise ValueError("batches: empty; recalibration needs at least one batch")
    return used
