"""How well a trained network bears one-shot cuts: natural sparsity and the sizes of its weights (001, Figure 1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from compress.checks import require
from compress.methods.one_shot import OneShot
from compress.prunable import prunable_weights, stored_weight
from compress.subspace import fold

CUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
EDGES = tuple(10.0 ** (exponent / 4) for exponent in range(-32, 5))
"""From 1e-8 to 10, four bins a decade."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Accuracy in [0, 1] of a network cut once to ``sparsity``, without retraining."""

    sparsity: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Magnitudes:
    """Shares of the prunable weights by |w|.

    Attributes:
        edges: ascending, [n + 1].
        shares: of the weights with edges[i] ≤ |w| < edges[i + 1], [n]; the outer bins take what lies beyond.
        zeros: share of weights that are exactly zero; in no bin.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    zeros: float


def cut_once(model: nn.Module, sparsity: float) -> nn.Module:
    """A copy of a plain ``model`` without its smallest weights, one threshold over all convolutions and linear layers.

    Statistics of BatchNorm and all other parameters stay as they are.
    """
    twin = copy.deepcopy(model)
    pruner = OneShot(sparsity=sparsity, skip_last_linear=False)
    pruner.attach(twin)
    pruner.finish()
    return fold(twin)


def one_shot_curve(
    model: nn.Module, evaluate: Callable[[nn.Module], float], sparsities: Sequence[float] = CUTS
) -> list[Cut]:
    """Accuracy after one-shot cuts to each sparsity (001, Figure 1b): ``evaluate`` gives that of a network."""
    return [Cut(sparsity=q, accuracy=evaluate(cut_once(model, q) if q else model)) for q in sparsities]


def natural_sparsity(curve: Sequence[Cut], lost: float = 0.0) -> float:
    """The largest cut up to which accuracy is never more than ``lost`` below that of the whole network (001, 3.2).

    Only as fine as the cuts of the curve: 0.1 apart in ``CUTS``. Those of :func:`cut_once` take the last linear layer
    too and leave the statistics of BatchNorm stale; a ``one_shot`` stage by default does neither and may lose less.

    Args:
        curve: from sparsity 0 on, ascending.
        lost: tolerance, a fraction of accuracy.

    Raises:
        ValueError: the curve is empty or does not begin with the whole network.
    """
    require(bool(curve) and curve[0].sparsity == 0, "curve", [cut.sparsity for cut in curve], "ascending from 0")
    kept = 0.0
    for cut in curve:
        if cut.accuracy < curve[0].accuracy - lost - 1e-9:
            break
        kept = cut.sparsity
    return kept


@torch.no_grad()
def magnitudes(model: nn.Module) -> Magnitudes:
    """The histogram of |w| over all convolutions and linear layers (001, Figure 1a)."""
    weights = [stored_weight(w.module) for w in prunable_weights(model, skip_last_linear=False).weights]
    edges = torch.tensor(EDGES, dtype=torch.float64)
    counts, zeros, total = torch.zeros(len(EDGES) - 1, dtype=torch.int64), 0, 0
    for weight in weights:
        sizes = weight.detach().abs().flatten().double().cpu()
        total += len(sizes)
        sizes = sizes[sizes > 0]
        zeros += weight.numel() - len(sizes)
        bins = torch.bucketize(sizes, edges, right=True) - 1
        counts += torch.bincount(bins.clamp(0, len(EDGES) - 2), minlength=len(EDGES) - 1)
    return Magnitudes(edges=EDGES, shares=tuple((counts / total).tolist()), zeros=zeros / total)
