"""Plain-text tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from runtime_check.formats import bytes_text, change_text, count_text, ms_text, percent_text

_COUNTS = (
    ("parameters", "parameters"),
    ("  of them not zero", "nonzero_parameters"),
    ("MACs", "macs"),
    ("  of them not zero", "nonzero_macs"),
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under a header: the first and the last column left, the others right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def verify_text(document: dict[str, Any]) -> str:
    """What `verify` found, for a reader at a terminal: figures, gates, warnings, verdict."""
    before, after, accuracy = document["baseline"], document["compressed"], document["accuracy"]
    low, high = accuracy["drop_ci95"]
    samples = accuracy["samples"]
    rows = [
        [
            "accuracy",
            percent_text(before["accuracy"]),
            percent_text(after["accuracy"]),
            f"{accuracy['drop_points']:.2f} points lost [{low:.2f}, {high:.2f}], {samples} samples",
        ],
        [
            "file size",
            bytes_text(before["size_bytes"]),
            bytes_text(after["size_bytes"]),
            _change(document, "size_bytes"),
        ],
        *([label, _count(before[key]), _count(after[key]), _change(document, key)] for label, key in _COUNTS),
        ["sparsity", _percent(before["sparsity"]), _percent(after["sparsity"]), ""],
    ]
    for entry in document["latency_by_threads"]:
        speedup = entry["speedup"]
        rows.append(
            [
                f"latency, {_threads(entry['threads'])}",
                ms_text(entry["baseline"]["median"]),
                ms_text(entry["compressed"]["median"]),
                _speed(speedup),
            ]
        )
    gates = [
        f"{'pass' if gate['passed'] else 'FAIL'}  {gate['name']} (limit {gate['limit']:g}): {gate['detail']}"
        for gate in document["verdict"]["gates"]
    ]
    return "\n".join(
        [
            table(["", "dense.onnx", "model.onnx", ""], rows),
            "",
            f"model.onnx: {kernels_text(document, document['environment'])}",
            *gates,
            *_warnings(document["verdict"]["warnings"]),
            "",
            "good: every gate is met" if document["verdict"]["passed"] else "not good: a gate is not met",
        ]
    )


def bench_text(document: dict[str, Any]) -> str:
    """What `bench` measured, for a reader at a terminal; the speed-up is against the first file."""
    rows = [
        [
            model["file"],
            bytes_text(model["size_bytes"]),
            *(ms_text(model["latency_ms"][key]) for key in ("median", "p10", "p90")),
            str(model["latency_ms"]["runs"]),
            _speed(model["speedup"]) if model["speedup"] else "baseline",
        ]
        for model in document["models"]
    ]
    environment = document["environment"]
    return "\n".join(
        [
            table(["file", "size", "median", "p10", "p90", "runs", "against the first"], rows),
            "",
            f"{_threads(document['threads'])} on {environment['cpu'] or 'an unnamed CPU'}, "
            f"onnxruntime {environment['onnxruntime']}",
            *(f"{model['file']}: {kernels_text(model, environment)}" for model in document["models"]),
            *_warnings(document["warnings"]),
        ]
    )


def kernels_text(entry: dict[str, Any], environment: dict[str, Any]) -> str:
    """How many layers the sparse kernels run, and the commonest reasons why not the others, or why none."""
    found = entry["kernels"]["layers"]
    if not found:
        status = str(environment["sparse_kernels"])
        why = f" ({status})" if status.startswith(("not available", "turned off")) else ""
        return f"no layer was offered to sparse kernels{why}"
    others = Counter(layer["reason"] for layer in found if layer["reason"]).most_common()
    listed = [f"{count} {reason}" for reason, count in others[:3]]
    if rest := sum(count for _, count in others[3:]):
        listed.append(f"{rest} for other reasons")
    why = "; ".join(listed)
    return f"sparse kernels run {entry['kernels']['claimed']} of {len(found)} layers{f' ({why})' if why else ''}"


def _speed(speedup: dict[str, Any]) -> str:
    low, high = speedup["ci95"]
    doubt = "" if speedup["stable"] else " unstable"
    return f"{speedup['median']:.2f}× as fast [{low:.2f}, {high:.2f}]{doubt}"


def _change(document: dict[str, Any], key: str) -> str:
    before, after = document["baseline"][key], document["compressed"][key]
    return "" if before is None or after is None else change_text(before, after)


def _count(count: float | None) -> str:
    return "unknown" if count is None else count_text(count)


def _percent(fraction: float | None) -> str:
    return "unknown" if fraction is None else percent_text(fraction)


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _warnings(warnings: Sequence[str]) -> list[str]:
    return [f"warning: {text}" for text in warnings]
