"""The small table at the end of a run: before, after, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def summary_table(document: Mapping[str, Any]) -> str:
    """Accuracy, parameters, MACs, bytes and latency before and after, from a report document."""
    before, after, speedup = document["baseline"], document["compressed"], document["speedup"]
    drop = 100 * (after["accuracy"] - before["accuracy"])
    rows = [
        ("", "dense", "compressed", ""),
        ("accuracy", f"{before['accuracy']:.2%}", f"{after['accuracy']:.2%}", f"{drop:+.2f} points"),
        _ratio("parameters", before["parameters"], after["parameters"]),
        _ratio("non-zero", before["nonzero_parameters"], after["nonzero_parameters"]),
        _ratio("MACs", before["macs"], after["macs"]),
        _ratio("bytes", before["size_bytes"], after["size_bytes"], "smaller", "larger"),
        (
            "latency",
            f"{before['latency_ms']['median']:.3f} ms",
            f"{after['latency_ms']['median']:.3f} ms",
            f"{_times(speedup['median'], 'faster', 'slower')} "
            f"(speed-up {_down(speedup['ci95'][0])} to {_down(speedup['ci95'][1])} in this run)",
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join(lines)


def _ratio(name: str, before: int, after: int, less: str = "fewer", more: str = "more") -> tuple[str, str, str, str]:
    change = _times(before / max(after, 1), less, more)
    if change.startswith("1.00x"):  # says nothing of counts, which are exact
        change = f"{after - before:+,}" if after != before else "as before"
    return name, f"{before:,}", f"{after:,}", change


def _times(ratio: float, better: str, worse: str) -> str:
    """ "2.38x faster", or "1.20x slower" where the ratio is below 1."""
    return f"{_down(ratio)}x {better}" if ratio >= 1 or ratio <= 0 else f"{_down(1 / ratio)}x {worse}"


def _down(ratio: float) -> str:
    """Two decimals, never rounded up."""
    return f"{math.floor(ratio * 100 + 1e-9) / 100:.2f}"


def verdict_lines(document: Mapping[str, Any]) -> list[str]:
    """One line a gate, one a warning."""
    verdict = document["verdict"]
    gates = [f"{'met   ' if gate['passed'] else 'MISSED'}  {gate['detail']}" for gate in verdict["gates"]]
    return [*gates, *(f"warning  {warning}" for warning in verdict["warnings"])]
