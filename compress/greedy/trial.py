"""The proof on copies, before anything is chosen: cut groups compute what scaled and masked ones compute."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.greedy.calls import one_line
from compress.greedy.groups import ChannelGroup, Network
from compress.greedy.local import Imitation
from compress.greedy.thinning import Thinned, scale_consumers, scales, shrink_plan
from compress.shrink import apply_plan
from compress.shrink.trial import accept

_LIMIT = 1e-9
_TOKENS = (torch.int32, torch.int64)


def proven(model: nn.Module, network: Network, example: Tensor) -> Network:
    """The network less the groups whose cut gives an error or another output than scaling and masking does.

    Args:
        model: a plain model of any mode; it is not changed.
        network: its groups.
        example: an input batch; one sample of it is used, and noise.

    Raises:
        ValueError: the model does not run in float64, or computes something else every time.
    """
    twin = copy.deepcopy(model).eval().double()
    _check_repeats(twin, in_float64(example[:1]))
    batch = torch.cat([in_float64(example[:1]), _noise(example[:1])])
    reasons: dict[int, str] = {}  # the last trial of a group that does not work was of nothing else new

    def works(chosen: frozenset[int]) -> bool:
        thinned = [(network.groups[number], _some(network.groups[number], number)) for number in chosen]
        try:
            if difference(twin, network, thinned, batch) <= _LIMIT:
                return True
            reason = "it does not compute what it computes scaled and masked"
        except Exception as error:  # a channel that was not followed shows as any error at all
            reason = f"it does not run: {one_line(error)}"
        reasons.update(dict.fromkeys(chosen, f"cut, {reason}"))
        return False

    good = accept(list(range(len(network.groups))), works)
    left_out = {group.name: reasons[number] for number, group in enumerate(network.groups) if number not in good}
    groups = tuple(group for number, group in enumerate(network.groups) if number in good)
    return replace(network, groups=groups, left_out={**network.left_out, **left_out})


def in_float64(x: Tensor) -> Tensor:
    """Inputs in float64, pixels in bytes too; what an embedding reads stays as it is."""
    return x if x.dtype in _TOKENS else x.double()


def _noise(x: Tensor) -> Tensor:
    """Other inputs of this shape; of whole numbers the same ones in another order, for others may mean nothing."""
    generator = torch.Generator().manual_seed(0)
    if x.is_floating_point():
        return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    order = torch.randperm(x.numel(), generator=generator).to(x.device)
    return in_float64(x.flatten()[order].reshape(x.shape))


@torch.no_grad()
def _check_repeats(twin: nn.Module, sample: Tensor) -> None:
    try:
        first, second = twin(sample.clone()), twin(sample.clone())
    except Exception as error:
        raise ValueError(f"model: it does not run in float64, where cuts are proven: {one_line(error)}") from error
    if relative_difference(first, second) > _LIMIT:
        raise ValueError(
            "model: two runs on the same inputs differ in eval mode; greedy imitation compares outputs, make it "
            "deterministic"
        )


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
