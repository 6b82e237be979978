"""What a run hands over: both ONNX files, the golden sample, the shrunk torch model, the manifest, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress import sparsity_report
from compress.freezenet_checkpoint import fitting, save_freezenet
from compress.frozen import FrozenValues
from compress.shrink import ShrinkPlan, save_shrunk
from compress.train import accuracy
from compress_then_export.data import Dataset
from compress_then_export.journal import Journal
from compress_then_export.recipe import Recipe
from compress_then_export.workspace import write_json
from exporters import export
from exporters.bundle import versions, write_golden, write_manifest
from exporters.inspection import ModelReport, inspect
from runtime_check.report import render

FREEZENET_NAME = "freezenet.safetensors"
GOLDEN_SAMPLES = 512
GOLDEN_BYTES = 32 << 20


def write_bundle(
    baseline: nn.Module,
    model: nn.Module,
    plans: list[ShrinkPlan],
    frozen: Mapping[str, FrozenValues],
    data: Dataset,
    recipe: Recipe,
    resolved: dict[str, Any],
    folder: Path,
    journal: Journal,
) -> tuple[ModelReport, ModelReport]:
    """Both ONNX files, the golden sample, the shrunk torch model, the FreezeNet checkpoint and the manifest."""
    example = torch.zeros(1, *data.input_shape)
    settings = recipe.export
    seeded = fitting(model, frozen)
    export(
        model,
        example,
        folder / "model.onnx",
        encoding=settings.encoding,
        values=settings.values,
        dynamic_batch=settings.dynamic_batch,
        metadata=metadata(model, data, resolved),
        seeds={name: source.to_json() for name, source in seeded.items()},
    )
    export(
        baseline,
        example,
        folder / "dense.onnx",
        encoding="dense",
        dynamic_batch=settings.dynamic_batch,
        metadata=metadata(baseline, data, resolved),
    )
    save_shrunk(model, plans, folder)
    whole = [name for name in frozen if name not in seeded]
    if whole:
        journal.warnings.append(
            f"export: {len(whole)} of {len(frozen)} frozen weights are kernels of filter bases, which no seed gives "
            f"back, and are stored whole: {', '.join(whole[:3])}{' and others' if whole[3:] else ''}"
        )
    if not frozen:
        pass
    elif not seeded:
        journal.notes.append(f"{FREEZENET_NAME}: not written, because no whole weight of the network is out of a seed")
    elif _shapes(model) != _shapes(baseline):
        journal.notes.append(
            f"{FREEZENET_NAME}: not written, because it restores a network of the size that was built and a stage "
            "shrunk this one; model.safetensors with plan.json holds it"
        )
    else:
        save_freezenet(model, seeded, folder / FREEZENET_NAME)
    inputs, labels = data.sample("test", golden_samples(data))
    write_golden(folder, inputs.numpy(), torch_outputs(model, inputs), labels.numpy())
    inspected = inspect(folder / "dense.onnx"), inspect(folder / "model.onnx")
    write_manifest(
        folder,
        recipe=resolved,
        seed=recipe.train.seed,
        figures={"baseline": figures(inspected[0]), "compressed": figures(inspected[1])},
        extra={"preprocessing": preprocessing(data)},
    )
    return inspected


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def metadata(model: nn.Module, data: Dataset, resolved: dict[str, Any]) -> dict[str, str]:
    """What the ONNX file says of itself, as JSON texts: where it comes from and what torch measured of it."""
    zeros = sparsity_report(model)
    metrics = {
        "accuracy": accuracy(model, data.loader("test", batch_size=512)),
        "samples": len(data.test),
        "parameters": zeros.parameters,
        "nonzero_parameters": zeros.nonzero_parameters,
        "sparsity": zeros.sparsity,
    }
    return {
        "recipe": json.dumps(resolved),
        "metrics": json.dumps(metrics),
        "versions": json.dumps(versions()),
        "preprocessing": json.dumps(preprocessing(data)),
    }


def finish_report(
    document: dict[str, Any],
    inspected: tuple[ModelReport, ModelReport],
    resolved: dict[str, Any],
    folder: Path,
    journal: Journal,
) -> dict[str, Any]:
    """Add what only the run knows, and write report.json and report.html into the bundle."""
    document |= {
        "stages": journal.stages,
        "recipe": resolved,
        "layers": layers(*inspected),
        "training": journal.training,
        "masks": journal.masks,
        "weights": journal.weights,
        "notes": journal.notes,
    }
    document["verdict"]["warnings"] += journal.warnings
    write_json(folder / "report.json", document)
    (folder / "report.html").write_text(render(document), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    write_manifest(
        folder,
        recipe=manifest["recipe"],
        seed=manifest["seed"],
        figures=manifest["figures"],
        extra={"preprocessing": manifest["preprocessing"]},
    )
    return document


def figures(report: ModelReport) -> dict[str, Any]:
    """The static figures of one file, as the manifest and the report name them."""
    names = ("size_bytes", "parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity")
    return {name: getattr(report, name) for name in names}


def layers(dense: ModelReport, compressed: ModelReport) -> list[dict[str, Any]]:
    """Per-layer figures of the compressed file, with the shape each layer had before."""
    before = {layer.name: list(layer.shape) for layer in dense.layers}
    rows = []
    for layer in compressed.layers:
        row = {**asdict(layer), "shape": list(layer.shape), "bytes": layer.size_bytes}
        if layer.name in before:
            row["baseline_shape"] = before[layer.name]
        rows.append(row)
    return rows


def preprocessing(data: Dataset) -> dict[str, Any]:
    """What a device must do to its images: scale to [0, 1], subtract mean, divide by std."""
    return {
        "input_shape": list(data.input_shape),
        "mean": list(data.normalisation.mean),
        "std": list(data.normalisation.std),
        "class_names": None if data.class_names is None else list(data.class_names),
    }


def golden_samples(data: Dataset) -> int:
    """As many test images as make a useful check and a bundle of reasonable size."""
    return max(1, min(GOLDEN_SAMPLES, GOLDEN_BYTES // (4 * int(np.prod(data.input_shape)))))


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Outputs [N, classes] of the folded torch model, the truth that the ONNX file is held against."""
    outputs = torch.cat([model(batch) for batch in torch.split(inputs, 64)])
    return np.asarray(outputs.numpy(), dtype=np.float32)
