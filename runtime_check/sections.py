"""The sections of the report; each returns nothing where its data are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from runtime_check.formats import bytes_text, count_text, percent_text, seconds_text
from runtime_check.markup import (
    amount,
    cell,
    dig,
    facts,
    figure,
    legend,
    number,
    outline,
    rows_of,
    section,
    table,
    words,
)
from runtime_check.pictures.bars import stage_bars
from runtime_check.pictures.curves import Panel, curves, end_to_end
from runtime_check.pictures.distribution import latency_distribution
from runtime_check.pictures.layers import MAX_ROWS, Layer, layer_bars

Document = Mapping[str, Any]


def latency(document: Document) -> str:
    """Every timing of both models."""
    samples = [_samples(dig(document, "latency_samples", side)) for side in ("baseline", "compressed")]
    if not samples[0] or not samples[1]:
        return ""
    threads = amount(document, "speedup", "threads")
    with_threads = f" with {threads:.0f} thread{'' if threads == 1 else 's'}" if threads else ""
    return section(
        "Latency",
        f"Both models were run in turns on the same input{with_threads}, so that both saw the same machine.",
        figure(latency_distribution(samples[0], samples[1])),
    )


def layers(document: Document) -> str:
    """What is left of each layer, as a picture and as a table."""
    rows = [row for row in rows_of(document, "layers") if _layer(row) is not None]
    found = [layer for row in rows if (layer := _layer(row)) is not None]
    if not found:
        return ""
    everything = sum(layer.baseline for layer in found) or 1
    left = sum(layer.nonzero for layer in found)
    keys = [("after", "still there"), ("removed", "zero")]
    if any(layer.stored < layer.baseline for layer in found):
        keys.append(("faint", "removed from the network"))
    lead = f"{len(found)} layers keep {count_text(left)} of {count_text(everything)} weights."
    if len(found) > MAX_ROWS:
        lead += f" The {MAX_ROWS} largest are drawn; the table has all."
    picture = figure(layer_bars(found))
    listed = [(words(row.get("name")), _layer_cells(row, layer)) for row, layer in zip(rows, found, strict=True)]
    header = ["layer", "shape", "weights", "not zero", "gone", "MACs", "stored as", "bytes"]
    summary = f"<summary>All {len(found)} layers as a table</summary>"
    details = f"<details>{summary}{table(header, listed, 'wide')}</details>"
    return section("Layers", lead, legend(*keys), picture, details)


def sparse_kernels(document: Document) -> str:
    """The layers that sparse kernels run, and why onnxruntime runs the others."""
    rows = rows_of(dig(document, "kernels"), "layers")
    if not rows:
        return ""
    claimed = sum(row.get("reason") is None for row in rows)
    listed = []
    for row in rows:
        sparsity = number(row.get("sparsity"))
        told = [
            cell(words(row.get("operator"))),
            cell("" if sparsity is None else percent_text(sparsity)),
            cell("sparse kernels" if row.get("reason") is None else "onnxruntime", words(row.get("reason"))),
        ]
        listed.append((words(row.get("name")), told))
    summary = f"<summary>All {len(rows)} layers as a table</summary>"
    lead = f"Of {len(rows)} layers of model.onnx {claimed} ran from their non-zeros."
    found = table(["layer", "operator", "zero", "run by"], listed, "wide")
    return section("Sparse kernels", lead, f"<details>{summary}{found}</details>")


def training(document: Document) -> str:
    """Loss, accuracy and sparsity over the epochs of all stages."""
    rows = rows_of(document, "training")
    masked = Panel(
        title="weights or filters masked", values=_column(rows, "sparsity", 100), low=0.0, high=100.0, unit=" %"
    )
    panels = _panels(
        Panel(title="training loss", values=_column(rows, "loss"), low=0.0),
        Panel(title="accuracy", values=_column(rows, "accuracy", 100), unit=" %"),
        *([masked] if any(masked.values) else []),
    )
    if not panels:
        return ""
    x = [float(index + 1) for index in range(len(rows))]
    return section(
        "Training",
        "One point an epoch, all stages one after the other.",
        figure(curves("Training curves", panels, x, _stage_names(rows), "epoch")),
    )


def masks(document: Document) -> str:
    """How the masks moved while they were chosen."""
    rows = [row for row in rows_of(document, "masks") if amount(row, "step") is not None]
    panels = _panels(
        Panel(
            title="sparsity of the mask",
            values=_column(rows, "sparsity", 100),
            low=0.0,
            high=100.0,
            unit=" %",
        ),
        Panel(
            title="pruning error δ: share of the squared weight norm that the mask hides",
            values=_column(rows, "delta"),
            low=0.0,
        ),
        Panel(
            title="overlap with the mask before (intersection over union)",
            values=_column(rows, "iou"),
            high=1.0,
        ),
        Panel(
            title="weights whose mask still changes later on",
            values=_column(rows, "flipping", 100),
            low=0.0,
            unit=" %",
        ),
    )
    if not panels:
        return ""
    x = end_to_end([amount(row, "step") or 0.0 for row in rows])
    return section(
        "Masks",
        "Which weights live is decided again and again during training; this is how that settles.",
        figure(curves("Mask dynamics", panels, x, _stage_names(rows), "training step")),
    )


def stages(document: Document) -> str:
    """Where the time of the run went."""
    found = [
        (words(row.get("name")), seconds)
        for row in rows_of(document, "stages")
        if (seconds := amount(row, "seconds")) is not None
    ]
    if not found:
        return ""
    return section("Stages", f"{seconds_text(sum(s for _, s in found))} in all.", figure(stage_bars(found)))


def notes(document: Document) -> str:
    """What the stages remarked."""
    found = document.get("notes")
    items = [words(item, 400) for item in found] if isinstance(found, list | tuple) else []
    listed = "".join(f"<li>{escape(item)}</li>" for item in items if item)
    return section("Notes", "What the stages remarked.", f"<ul>{listed}</ul>") if listed else ""


def recipe(document: Document) -> str:
    """The recipe as it was run."""
    found = dig(document, "recipe")
    if not isinstance(found, Mapping) or not found:
        return ""
    return section("Recipe", "", f"<pre>{escape(outline(found))}</pre>")


def environment(document: Document) -> str:
    """The machine all this was measured on."""
    found = dig(document, "environment")
    if not isinstance(found, Mapping):
        return ""
    memory = amount(found, "memory_bytes")
    pairs = []
    for key, value in found.items():
        flat = isinstance(value, list | tuple)
        text = ", ".join(filter(None, map(words, value))) if flat else words(value)
        if key == "memory_bytes":
            key, text = "memory", bytes_text(memory) if memory else ""
        if text:
            pairs.append((words(key).replace("_", " "), text))
    return section("Environment", "", facts(pairs))


def _layer(row: Document) -> Layer | None:
    stored, nonzero = amount(row, "parameters"), amount(row, "nonzero_parameters")
    if not stored or nonzero is None:
        return None
    sizes = [number(size) for size in _shape(row, "baseline_shape")]
    baseline = math.prod(size for size in sizes if size) if sizes and all(sizes) else stored
    return Layer(
        name=words(row.get("name")) or "unnamed",
        baseline=max(baseline, stored),
        stored=stored,
        nonzero=min(nonzero, stored),
    )


def _layer_cells(row: Document, layer: Layer) -> list[str]:
    before, after = ("×".join(map(words, _shape(row, key))) for key in ("baseline_shape", "shape"))
    changed = f"was {before}" if before and before != after else ""
    macs = amount(row, "macs")
    size = amount(row, "bytes") if "bytes" in row else amount(row, "size_bytes")
    return [
        cell(after, changed),
        cell(
            count_text(layer.stored),
            f"of {count_text(layer.baseline)}" if layer.baseline > layer.stored else "",
        ),
        cell(count_text(layer.nonzero)),
        cell(percent_text(layer.gone)),
        cell("" if macs is None else count_text(macs)),
        cell(words(row.get("encoding"))),
        cell("" if size is None else bytes_text(size)),
    ]


def _shape(row: Document, key: str) -> Sequence[object]:
    value = row.get(key)
    return value if isinstance(value, list | tuple) else ()


def _panels(*wanted: Panel) -> list[Panel]:
    """The panels that have a value at all."""
    return [panel for panel in wanted if any(value is not None for value in panel.values)]


def _column(rows: Sequence[Document], key: str, factor: float = 1.0) -> tuple[float | None, ...]:
    values = (number(row.get(key)) for row in rows)
    return tuple(None if value is None else factor * value for value in values)


def _stage_names(rows: Sequence[Document]) -> list[str]:
    return [words(row.get("stage")) for row in rows]


def _samples(value: object) -> list[float]:
    found = map(number, value) if isinstance(value, list | tuple) else ()
    return [sample for sample in found if sample is not None and sample > 1e-9]
