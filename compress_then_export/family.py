"""What a sweep hands over beside its bundles: one report over all of them, the trained network, a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

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


class Cost(NamedTuple):
    """What a model costs, with the interval in which it lies."""

    middle: float
    low: float
    high: float


def family_document(
    documents: Mapping[str, Mapping[str, Any]], sparsities: Sequence[float], cut: int
) -> dict[str, Any]:
    """One document out of the members' reports, by folder name and in the order of their sparsities.

    ``members`` holds for each the sparsity that was asked for, its figures, and the fronts it is on: among all members
    and the dense network, no other is at least as accurate and smaller ("size") or quicker ("latency"). Quicker is
    what was so in turns with the dense network, outside the confidence intervals. ``cut`` is the number of the
    stage that cuts, from 1: it and those after it are each member's own, and in ``recipe`` it has no sparsity.
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
        "stages": _stages(documents, cut),
        **{key: first[key] for key in _SHARED},
        "sparsities": list(sparsities),
        "recipe": _without_sparsity(first["recipe"], cut),
        "verdict": {"passed": all(row["passed"] for row in members), "warnings": _warnings(documents)},
    }


def pareto_front(points: Sequence[tuple[Cost, float]]) -> set[int]:
    """Indices of the points (cost, value) that no other dominates.

    A point dominates one that costs no less and is worth no more, if it is worth more or their intervals are apart.
    """
    return {
        index
        for index, (cost, value) in enumerate(points)
        if not any(c.middle <= cost.middle and v >= value and (v > value or c.high < cost.low) for c, v in points)
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


def _stages(documents: Mapping[str, Mapping[str, Any]], cut: int) -> list[dict[str, Any]]:
    """Seconds of the stages before the cut once, as the first member has them, then those of each under its name."""
    found: list[dict[str, Any]] = []
    for folder, document in documents.items():
        stages = document["stages"]
        own = next(number for number, stage in enumerate(stages) if stage["name"].startswith(f"{cut}-"))
        found += [] if found else stages[:own]
        found += [{**stage, "name": f"{folder} {stage['name']}"} for stage in stages[own:]]
    return found


def _without_sparsity(recipe: Mapping[str, Any], cut: int) -> dict[str, Any]:
    """The recipe that a sweep over these sparsities begins with."""
    stages = [dict(stage) for stage in recipe["compress"]]
    del stages[cut - 1]["sparsity"]
    return {**recipe, "compress": stages}


def _size(row: Mapping[str, Any]) -> Cost:
    return Cost(*[float(row["size_bytes"])] * 3)


def _latency(row: Mapping[str, Any]) -> Cost:
    """In latencies of the dense network, as measured in turns with it."""
    if "speedup" not in row:
        return Cost(1.0, 1.0, 1.0)
    slowest, quickest = row["speedup"]["ci95"]
    return Cost(1 / row["speedup"]["median"], 1 / quickest, 1 / slowest)


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
