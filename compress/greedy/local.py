"""Greedy local imitation of one layer (Ye et al. 2020, section 2.1), on inner products alone.

Neuron i of N adds s_i to what the layers behind read, F = Σ_i s_i / N, and f = Σ_i a_i s_i with a on the simplex
imitates F. All that the search needs are G_ij = ⟨s_i, s_j⟩, h_i = ⟨s_i, F⟩ and ‖F‖². On the simplex
f − F = Σ_i a_i (s_i − F), so with the centred products C_ij = ⟨s_i − F, s_j − F⟩ = G_ij − h_i − h_j + ‖F‖² the local
discrepancy is D(a) = aᵀCa, and along d_i = s_i − f it is D + 2γ b_i + γ² q_i with

    b_i = ⟨f − F, d_i⟩ = (Ca)_i − aᵀCa,        q_i = ‖d_i‖² = C_ii − 2 (Ca)_i + aᵀCa.

Ca follows a step in O(N); no neuron is ever run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.checks import require, require_whole

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

STEPS = ("line_search", "fixed")
_STEPS_PER_NEURON = 50
_ROUNDING = 1e-14


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """One thinned layer: the neurons that stay, ascending, their shares (> 0, sum 1) and its local discrepancy D̄."""

    kept: Indices
    shares: Vector
    discrepancy: float

    @property
    def size(self) -> int:
        """Neurons that stay."""
        return len(self.kept)

    def dense(self, neurons: int) -> Vector:
        """[N] a, with the zeros."""
        a = np.zeros(neurons)
        a[self.kept] = self.shares
        return a


def imitate_locally(
    gram: Matrix,
    target: Vector,
    energy: float,
    *,
    step: str = "line_search",
    largest: int | None = None,
    max_steps: int | None = None,
) -> dict[int, Imitation]:
    """The best imitation met of every size, on one greedy path from a single neuron (3) upwards.

    Args:
        gram: [N, N] G_ij = ⟨s_i, s_j⟩.
        target: [N] h_i = ⟨s_i, F⟩.
        energy: ‖F‖².
        step: "line_search" over adding, adjusting and removing (4), or "fixed": γ = 1/(k + 1), adding only (5).
        largest: stop once there are more neurons than this; default N.
        max_steps: default 50 N. A path ends early where no step lowers D̄ any more.

    Returns:
        Size -> imitation, ascending. Sizes that the path left out, by stopping or by never passing them, are absent.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or no such step.
    """
    gram, target = np.asarray(gram, dtype=np.float64), np.asarray(target, dtype=np.float64)
    neurons = len(target)
    if gram.shape != (neurons, neurons) or target.ndim != 1 or neurons == 0:
        raise ValueError(f"gram: shape {gram.shape} does not fit a target of shape {target.shape}, [N, N] and [N]")
    if not (np.isfinite(gram).all() and np.isfinite(target).all() and np.isfinite(energy)):
        raise ValueError("gram: it, target or energy holds NaN or infinity; check the model and the calibration data")
    require(step in STEPS, "step", step, f"one of {', '.join(STEPS)}")
    if largest is not None:
        require_whole("largest", largest, 1)
    limit = _STEPS_PER_NEURON * neurons if max_steps is None else max_steps
    centred = gram - target[:, None] - target[None, :] + energy
    states = _line_search(centred, energy) if step == "line_search" else _fixed_steps(centred)
    best: dict[int, Imitation] = {}
    for number, (a, discrepancy) in enumerate(states):
        kept = np.flatnonzero(a)
        if largest is not None and len(kept) > largest:
            break
        if len(kept) not in best or discrepancy < best[len(kept)].discrepancy:
            best[len(kept)] = Imitation(kept=kept, shares=a[kept], discrepancy=discrepancy)
        if number >= limit:
            break
    return dict(sorted(best.items()))


def line_search(a: Vector, slope: Vector, curvature: Vector) -> tuple[Vector, Vector]:
    """[N] the best step γ_i within U_i for every neuron, and by how much it lowers D̄ (4).

    Args:
        a: [N] present shares.
        slope: [N] b_i = ⟨f − F, s_i − f⟩.
        curvature: [N] q_i = ‖s_i − f‖².
    """
    movable = (a < 1) & (curvature > 0)
    low = np.where(movable, -a / np.where(a < 1, 1 - a, 1.0), 0.0)  # removes the neuron; 0 where there is none
    gamma = np.clip(-slope / np.where(movable, curvature, 1.0), low, 1.0)
    gamma = np.where(movable, gamma, 0.0)
    return gamma, -gamma * (2 * slope + gamma * curvature)


def _line_search(centred: Matrix, energy: float) -> Iterator[tuple[Vector, float]]:
    neurons = len(centred)
    a, products, discrepancy = _single(centred)
    diagonal = np.diagonal(centred)
    count = 0
    while True:
        yield a, discrepancy
        gamma, gain = line_search(a, products - discrepancy, diagonal - 2 * products + discrepancy)
        i = int(np.argmax(gain))
        if gain[i] <= _ROUNDING * max(discrepancy, _ROUNDING * energy):
            return
        removed = a[i] > 0 and gamma[i] <= -a[i] / (1 - a[i])
        a = (1 - gamma[i]) * a
        a[i] = 0.0 if removed else a[i] + gamma[i]
        count += 1
        if count % neurons:
            products = (1 - gamma[i]) * products + gamma[i] * centred[i]
        else:  # O(N²) once in N steps keeps rounding from piling up
            a /= a.sum()
            products = centred @ a
        discrepancy = max(float(a @ products), 0.0)


def _fixed_steps(centred: Matrix) -> Iterator[tuple[Vector, float]]:
    a, products, discrepancy = _single(centred)
    diagonal = np.diagonal(centred)
    count = 1
    while True:
        yield a, discrepancy
        gamma = 1 / (count + 1)
        i = int(np.argmin(2 * (1 - gamma) * products + gamma * diagonal))  # D of the step, less what all have alike
        a = (1 - gamma) * a
        a[i] += gamma
        products = (1 - gamma) * products + gamma * centred[i]
        discrepancy = max(float(a @ products), 0.0)
        count += 1


def _single(centred: Matrix) -> tuple[Vector, Vector, float]:
    """The best neuron on its own (3): a, Ca and D."""
    i = int(np.argmin(np.diagonal(centred)))
    a = np.zeros(len(centred))
    a[i] = 1.0
    return a, centred[i].copy(), max(float(centred[i, i]), 0.0)
