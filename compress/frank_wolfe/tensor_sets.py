"""A K-sparse polytope for every tensor of a network, as large as its initialisation asks for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.checks import require, require_whole
from compress.frank_wolfe.polytope import KSparsePolytope
from compress.prunable import stored_weight
from compress.subspace import fold

Norm = Literal["expected", "start", "shape"]
NORMS: tuple[Norm, ...] = ("expected", "start", "shape")

_DRAWN, _REPETITIONS = 4_000_000, 100  # numbers to draw for an expected norm, draws at most; one of 4 M is within 0.1 %


def k_sparse_sets(
    model: nn.Module,
    *,
    radius: float = 15.0,
    k_fraction: float = 0.05,
    k_minimum: int = 10,
    norm: Norm = "expected",
) -> dict[Tensor, KSparsePolytope]:
    """C(K, r) for every parameter, with K = max(``k_minimum``, ``k_fraction`` · n) and r = τ · E‖init‖₂ / √K.

    So the vertices are τ times as long as the tensor was at first (001, section 3.2 and table 2). 001 pairs each
    weight and each bias with a set; its published code does so with the scale and shift of BatchNorm too, and so
    does this. A tensor that starts as zero counts as having norm 1, as there.

    Args:
        model: as it is before training; it is not changed, nor is the random state.
        radius: τ, positive.
        k_fraction: share of the entries of a tensor that a vertex has, in (0, 1].
        k_minimum: entries that it has at least, as far as there are as many.
        norm: E‖init‖ of what. "expected": of the tensor's own layer, over draws of its ``reset_parameters``; of a
            layer without one, the norm the tensor has now. "start": the norm that each tensor has now, which suits
            networks that initialise themselves otherwise, and trained ones. "shape": as in the published code, where
            the last tensor of equal shape decides for all: a BatchNorm scale gets the 1 of its shift, starts
            outside its set, and must be shrunk (to 0.741 of it at 64 channels).

    Raises:
        ValueError: a setting out of range.
    """
    check_sets(radius, k_fraction, k_minimum, norm)
    norms: dict[Tensor, float] = {}
    parameter: Tensor
    for parameter in model.parameters():
        norms[parameter] = float(torch.linalg.vector_norm(parameter.detach()))
    if norm != "start":
        norms |= dict(_expected(model))
    if norm == "shape":
        by_shape = {tensor.shape: value or 1.0 for tensor, value in norms.items()}
        norms |= {tensor: by_shape[tensor.shape] for tensor in norms}
    sets: dict[Tensor, KSparsePolytope] = {}
    for tensor, value in norms.items():
        k = min(tensor.numel(), max(k_minimum, int(k_fraction * tensor.numel())))
        sets[tensor] = KSparsePolytope(k=k, radius=radius * (value or 1.0) / k**0.5)
    return sets


def check_sets(radius: float, k_fraction: float, k_minimum: int, norm: str) -> None:
    """Raise ValueError naming the setting of :func:`k_sparse_sets` that is out of range."""
    number = isinstance(radius, Real) and not isinstance(radius, bool)
    require(number and 0 < radius < float("inf"), "radius", radius, "a positive number")
    number = isinstance(k_fraction, Real) and not isinstance(k_fraction, bool)
    require(number and 0 < k_fraction <= 1, "k_fraction", k_fraction, "a share of the entries, in (0, 1]")
    require_whole("k_minimum", k_minimum, 1)
    require(norm in NORMS, "norm", norm, f"one of {', '.join(NORMS)}")


@torch.no_grad()
def _expected(model: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """E‖init‖₂ of the parameters whose layer can draw them anew: the mean over draws of a plain copy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in model.modules():
            if not callable(getattr(module, "reset_parameters", None)):
                continue
            own: dict[str, Tensor] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
            if parametrize.is_parametrized(module, "weight"):
                own["weight"] = stored_weight(module)
            twin: Any = fold(copy.deepcopy(module)).cpu()
            largest = max((tensor.numel() for tensor in own.values()), default=1)
            repetitions = min(_REPETITIONS, max(1, _DRAWN // max(1, largest)))
            totals = dict.fromkeys(own, 0.0)
            for _ in range(repetitions):
                twin.reset_parameters()
                for name in own:
                    totals[name] += float(torch.linalg.vector_norm(getattr(twin, name)))
            for name, tensor in own.items():
                yield tensor, totals[name] / repetitions
