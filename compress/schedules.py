"""How much is pruned, and when: functions of the optimizer step."""

from __future__ import annotations

import math


def cubic(step: int, *, start: int, length: int, initial: float, final: float) -> float:
    """s_t = s_f + (s_i − s_f) (1 − (t − t₀) / (n Δt))³ between t₀ and t₀ + n Δt, constant outside.

    Fast at first, when there are many redundant weights, slow at the end (Zhu & Gupta 2017; 003, A.2).

    Args:
        step: t, optimizer steps done.
        start: t₀.
        length: n Δt in steps; 0 jumps to ``final`` at ``start``.
        initial: s_i, sparsity up to ``start``.
        final: s_f, sparsity from ``start + length`` on.
    """
    if step < start:
        return initial
    if step >= start + length:
        return final
    return final + (initial - final) * (1.0 - (step - start) / length) ** 3


def cosine(step: int, *, length: int, initial: float) -> float:
    """f(t) = α/2 · (1 + cos(π t / T_end)), from α at step 0 to 0 at T_end (Evci et al. 2020, RigL, section 3).

    Args:
        step: t, optimizer steps done.
        length: T_end in steps; f is 0 from there on.
        initial: α.
    """
    return initial / 2 * (1 + math.cos(math.pi * step / length)) if step < length else 0.0
