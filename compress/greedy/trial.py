"""The proof on copies, before anything is chosen: cut groups compute what scaled and masked ones compute."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.greedy.groups import ChannelGroup, Network
from compress.greedy.local import Imitation
from compress.greedy.thinning import Thinned, scale_consumers, scales, shrink_plan
from compress.shrink import apply_plan
from compress.shrink.trial import accept

log = logging.getLogger(__name__)
_LIMIT = 1e-9


def proven(model: nn.Module, network: Network, example: Tensor) -> Network:
    """The network less the groups whose cut gives an error or another output than scaling and masking does.

    Args:
        model: a plain model of any mode; it is not changed.
        network: its groups.
        example: an input batch; one sample of it is used, and noise.
    """
    twin = copy.deepcopy(model).eval().double()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(example[:1].shape, generator=generator, dtype=torch.float64)
    batch = torch.cat([example[:1].double(), noise.to(example.device)])

    def works(chosen: frozenset[int]) -> bool:
        thinned = [(network.groups[number], _some(network.groups[number], number)) for number in chosen]
        try:
            return difference(twin, network, thinned, batch) <= _LIMIT
        except Exception as error:  # a channel that was not followed shows as any error at all
            log.debug("greedy: a trial cut failed: %s", error)
            return False

    good = accept(list(range(len(network.groups))), works)
    left_out = {
        group.name: "cut, it does not compute what it computes scaled and masked"
        for number, group in enumerate(network.groups)
        if number not in good
    }
    groups = tuple(group for number, group in enumerate(network.groups) if number in good)
    return replace(network, groups=groups, left_out={**network.left_out, **left_out})


@torch.no_grad()
def difference(model: nn.Module, network: Network, thinned: Thinned, batch: Tensor) -> float:
    """Largest difference of the outputs of the cut and of the scaled-and-masked network, relative to the largest."""
    masked = copy.deepcopy(model).eval()
    for group, imitation in thinned:
        scale_consumers(masked, group, scales(group, imitation))
    wanted = masked(batch.clone())  # a model may work in place on what it is given
    del masked  # a large network need not be there three times
    return relative_difference(
        wanted, apply_plan(copy.deepcopy(model).eval(), shrink_plan(model, network, thinned))(batch.clone())
    )


def relative_difference(wanted: Any, found: Any) -> float:
    """Largest difference of the outputs of two networks, relative to the largest of each output."""
    largest = 0.0
    for expected, other in zip(tree_leaves(wanted), tree_leaves(found), strict=True):
        if isinstance(expected, Tensor):
            if expected.shape != other.shape or not bool(expected.isfinite().all()):
                return float("inf")
            largest = max(largest, float((expected - other).abs().max()) / max(float(expected.abs().max()), 1e-30))
    return largest


def _some(group: ChannelGroup, number: int) -> Imitation:
    """Other units, another number of them, and other shares in every group: no two groups may be exchanged."""
    rng = np.random.default_rng(number)
    size = int(rng.integers(1, max(2, 3 * group.units // 4)))
    kept = np.sort(rng.choice(group.units, size, replace=False))
    return Imitation(kept=kept, shares=rng.dirichlet(np.full(size, 4.0)), discrepancy=0.0)
