"""The verdict: which gates the bundle was held to, and which it passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from runtime_check.accuracy import PairedAccuracy
from runtime_check.errors import CheckError, one_line
from runtime_check.latency import Comparison
from runtime_check.parity import Parity

MIN_AGREEMENT = 0.999
PARITY_TOLERANCE = 1e-3
# float16 values move every weight by up to 2^-11 of itself; deep networks add that up.
PARITY_TOLERANCE_FLOAT16 = 1e-2


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit: `limit` and `value` in the gate's own unit (value None: it could not be computed)."""

    name: str
    limit: float
    value: float | None
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The gates asked for; None leaves a gate out. Parity is always held.

    Args:
        max_drop: accuracy the model may lose against dense, in percentage points.
        min_speedup: how many times faster than dense it must be, at least.
        max_latency_ms: median latency it may have, at most.
        parity_tolerance: largest relative difference from the torch outputs.

    Raises:
        CheckError: naming the argument whose value makes no sense.
    """

    max_drop: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    parity_tolerance: float = PARITY_TOLERANCE

    def with_tolerance(self, parity_tolerance: float) -> Limits:
        """The same limits with another parity tolerance."""
        return replace(self, parity_tolerance=parity_tolerance)

    def __post_init__(self) -> None:
        _check("max_drop", self.max_drop, -100.0, 100.0, "percentage points between -100 and 100")
        _check("min_speedup", self.min_speedup, 1e-9, math.inf, "a factor above 0")
        _check("max_latency_ms", self.max_latency_ms, 1e-9, math.inf, "milliseconds above 0")
        _check("parity_tolerance", self.parity_tolerance, 0.0, math.inf, "a relative difference of at least 0")


def judge(
    limits: Limits,
    *,
    parity: Parity,
    accuracy: PairedAccuracy,
    latency: Comparison,
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """Hold the figures against the limits; returns the `verdict` object of report.json."""
    gates = [_parity_gate(limits.parity_tolerance, parity)]
    if limits.max_drop is not None:
        gates.append(_accuracy_gate(limits.max_drop, accuracy))
    if limits.min_speedup is not None:
        gates.append(_speed_gate(limits.min_speedup, latency))
    if limits.max_latency_ms is not None:
        gates.append(_latency_gate(limits.max_latency_ms, latency))
    return {
        "passed": all(gate.passed for gate in gates),
        "gates": [asdict(gate) for gate in gates],
        "warnings": list(dict.fromkeys(warnings)),
    }


def default_tolerance(recipe: object) -> float:
    """Parity tolerance for a bundle's recipe: looser where the recipe stores values as float16."""
    export = recipe.get("export") if isinstance(recipe, Mapping) else None
    lossy = isinstance(export, Mapping) and export.get("values") == "float16"
    return PARITY_TOLERANCE_FLOAT16 if lossy else PARITY_TOLERANCE


def _parity_gate(tolerance: float, parity: Parity) -> Gate:
    agreement = f"top class equal for {parity.argmax_agreement:.2%} of {parity.samples} samples"
    if parity.max_rel_diff is None:
        return Gate(
            name="parity",
            limit=tolerance,
            value=None,
            passed=False,
            detail=f"the outputs or the golden outputs hold NaN or infinity; {agreement}",
        )
    return Gate(
        name="parity",
        limit=tolerance,
        value=parity.max_rel_diff,
        passed=parity.max_rel_diff <= tolerance,
        detail=f"largest relative difference from the torch outputs {parity.max_rel_diff:.2g}; {agreement}",
    )


def _accuracy_gate(limit: float, accuracy: PairedAccuracy) -> Gate:
    low, high = accuracy.drop_ci95
    # A drop of exactly the limit passes; the margin is for the rounding of 100 × a fraction.
    passed = accuracy.drop_points <= limit + 1e-9
    if passed and high > limit:
        proof = f"; the interval reaches beyond the limit: {accuracy.samples} samples do not prove it"
    elif not passed and low <= limit:
        proof = f"; the interval reaches below the limit: {accuracy.samples} samples do not rule it out"
    else:
        proof = ""
    return Gate(
        name="accuracy",
        limit=limit,
        value=accuracy.drop_points,
        passed=passed,
        detail=f"drop of {accuracy.drop_points:.2f} points (95 % interval {low:.2f} to {high:.2f}, "
        f"{accuracy.samples} samples: {accuracy.lost} lost, {accuracy.won} won){proof}",
    )


def _speed_gate(limit: float, latency: Comparison) -> Gate:
    speedup = latency.speedup
    low, high = speedup.ci95
    holds = "holds too" if low >= limit else "does not hold"
    return Gate(
        name="speed",
        limit=limit,
        value=speedup.median,
        passed=speedup.median >= limit,
        detail=f"{speedup.median:.2f} times as fast as dense with {_threads(speedup.threads)} "
        f"(95 % interval {low:.2f} to {high:.2f}; its lower end {holds})"
        + ("" if speedup.stable else "; the measurement is unstable"),
    )


def _latency_gate(limit: float, latency: Comparison) -> Gate:
    figures = latency.compressed.to_json()
    return Gate(
        name="latency",
        limit=limit,
        value=figures["median"],
        passed=figures["median"] <= limit,
        detail=f"median {figures['median']:.3g} ms with {_threads(figures['threads'])} "
        f"(90 % of the calls within {figures['p90']:.3g} ms)",
    )


def _threads(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def _check(argument: str, value: object, low: float, high: float, meaning: str) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise CheckError(f"{argument} must be {meaning}, not {one_line(repr(value), 60)}")
