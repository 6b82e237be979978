"""The small table at the end of a run: before, after, and by how much."""

from __future__ import annotations

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
        _ratio("bytes", before["size_bytes"], after["size_bytes"]),
        (
            "latency",
            f"{before['latency_ms']['median']:.3f} ms",
            f"{after['latency_ms']['median']:.3f} ms",
            f"{speedup['median']:.2f}x faster ({speedup['ci95'][0]:.2f} to {speedup['ci95'][1]:.2f})",
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join(lines)


def _ratio(name: str, before: int, after: int) -> tuple[str, str, str, str]:
    return name, f"{before:,}", f"{after:,}", f"{before / max(after, 1):.2f}x fewer"


def verdict_lines(document: Mapping[str, Any]) -> list[str]:
    """One line a gate, one a warning."""
    verdict = document["verdict"]
    gates = [f"{'met   ' if gate['passed'] else 'MISSED'}  {gate['detail']}" for gate in verdict["gates"]]
    return [*gates, *(f"warning  {warning}" for warning in verdict["warnings"])]
