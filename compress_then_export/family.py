"""What a sweep hands over beside its bundles: one report over all of them, the trained network, a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from compress_then_export.pipeline import Work
from compress_then_export.workspace import write_json
from exporters.bundle import versions
from runtime_check.family import render_family

TRAINED = "trained.safetensors"

_FIGURES = (
    "accuracy", "size_bytes", "latency_ms", "parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity",
)  # fmt: skip
_SHARED = ("training", "weights", "environment")


def family_document(documents: Mapping[str, Mapping[str, Any]], sparsities: Sequence[float]) -> dict[str, Any]:
    """One document out of the members' reports, by folder name and in the order of their sparsities.

    ``members`` holds for each the sparsity that was asked for, its figures, and the fronts it is on: among all members
    and the dense network, no other is at least as accurate and smaller ("size") or quicker ("latency").
    """
    members = []
    for (folder, document), sparsity in zip(documents.items(), sparsities, strict=True):
        compressed, verdict = document["compressed"], document["verdict"]
        missed = [gate["name"] for gate in verdict["gates"] if not gate["passed"]]
        drop = 100 * (document["baseline"]["accuracy"] - compressed["accuracy"])
        members.append(
            {
                "folder": folder,
                "target_sparsity": sparsity,
                **{key: compressed[key] for key in _FIGURES},
                "drop_points": drop,
                "speedup": document["speedup"],
                "passed": verdict["passed"],
                "missed": missed,
            }
        )
    first = next(iter(documents.values()))
    baseline = {"folder": None, **{key: first["baseline"][key] for key in _FIGURES}}
    everyone = [baseline, *members]
    for name, cost in (("size", _size), ("latency", _latency)):
        front = pareto_front([(cost(row), row["accuracy"]) for row in everyone])
        for index, row in enumerate(everyone):
            row.setdefault("fronts", []).extend([name] if index in front else [])
    return {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "baseline": baseline,
        "members": members,
        "stages": _stages(documents),
        **{key: first[key] for key in _SHARED},
        "recipe": first["recipe"],
        "verdict": {"passed": all(row["passed"] for row in members), "warnings": _warnings(documents)},
    }


def pareto_front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Indices of the points (cost, value) that no other dominates: at most the cost, at least the value, not equal."""
    return {
        index
        for index, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    }


def write_family(document: Mapping[str, Any], work: Work, folder: Path) -> None:
    """Write report.json, report.html, the network before it was cut, and last the manifest into ``folder``.

    The network is left out where an earlier stage has shrunk it: its weights would not fit the recipe's model.
    """
    write_json(folder / "report.json", document)
    (folder / "report.html").write_text(render_family(document), encoding="utf-8")
    shapes = [{name: t.shape for name, t in model.state_dict().items()} for model in (work.model, work.baseline)]
    if shapes[0] == shapes[1]:
        # Cloned, because the format refuses tensors that share memory.
        save_file({name: tensor.clone() for name, tensor in work.model.state_dict().items()}, folder / TRAINED)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / "manifest.json",
        {
            "schema": 1,
            "tool": "compress-then-export",
            "kind": "family",
            "created": document["created"],
            "files": {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files},
            "recipe": document["recipe"],
            "versions": versions(),
        },
    )


def _warnings(documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings that all members have in common once, then those of each under its name."""
    lists = {folder: document["verdict"]["warnings"] for folder, document in documents.items()}
    common = [w for w in next(iter(lists.values())) if all(w in warnings for warnings in lists.values())]
    own = [f"{folder}: {w}" for folder, warnings in lists.items() for w in warnings if w not in common]
    return [*common, *own]


def _stages(documents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of the stages that all members share once, then those of each member under its name."""
    lists = [document["stages"] for document in documents.values()]
    common = 0
    while all(len(stages) > common for stages in lists) and all(s[common] == lists[0][common] for s in lists):
        common += 1
    if len(lists) == 1:
        return list(lists[0])
    own = [
        {"name": f"{folder} {stage['name']}", "seconds": stage["seconds"]}
        for folder, stages in zip(documents, lists, strict=True)
        for stage in stages[common:]
    ]
    return [*lists[0][:common], *own]


def _size(row: Mapping[str, Any]) -> float:
    return float(row["size_bytes"])


def _latency(row: Mapping[str, Any]) -> float:
    return float(row["latency_ms"]["median"])


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": path.stat().st_size}


def family_table(document: Mapping[str, Any]) -> str:
    """The table at the end of a sweep: a row for the dense network and for each member."""
    rows = [("", "accuracy", "bytes", "latency", "fronts", "gates")]
    for row in [document["baseline"], *document["members"]]:
        gates = "" if "passed" not in row else "met" if row["passed"] else f"MISSED {', '.join(row['missed'])}"
        rows.append(
            (
                row["folder"] or "dense",
                f"{row['accuracy']:.2%}",
                f"{row['size_bytes']:,}",
                f"{row['latency_ms']['median']:.3f} ms",
                ", ".join(row["fronts"]) or "-",
                gates,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in (0, 4, 5) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
