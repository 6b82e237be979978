"""The whole path: model -> train -> (prune -> fold -> shrink)* -> export -> check -> report."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import runtime_check
from compress import fold, sparsity_report
from compress.methods.base import Method
from compress.recalibration import recalibrate
from compress.shrink import ShrinkPlan, save_shrunk, shrink
from compress.train import EpochRecord, accuracy, fit
from compress_then_export.data import Dataset, Loader, open_data
from compress_then_export.models import build, check_input, describe, load_weights
from compress_then_export.recipe import Recipe, StageSection, TrainSection
from compress_then_export.workspace import Workspace, write_json
from exporters import export
from exporters.bundle import versions, write_golden, write_manifest
from exporters.inspection import ModelReport, inspect
from runtime_check.report import render

logger = logging.getLogger(__name__)

GOLDEN_SAMPLES = 512
GOLDEN_BYTES = 32 << 20


@dataclass(kw_only=True)
class Journal:
    """What the stages leave behind for the report."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and note how long it took."""
        logger.info("%s ...", name)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.stages.append({"name": name, "seconds": round(seconds, 3)})
        logger.info("%s: done in %.1f s", name, seconds)

    def trained(self, stage: str, records: list[EpochRecord]) -> None:
        """Note the epochs of a training."""
        self.training += [{"stage": stage, **asdict(record)} for record in records]


def run(recipe: Recipe, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Do everything the recipe says; the bundle appears at ``out`` when all of it is done.

    Args:
        recipe: a validated recipe.
        out: folder of the bundle.
        resume: go on with the checkpoints of a run that stopped.

    Returns:
        The report document (contract: report.json).

    Raises:
        ValueError: wrong weights, data, settings or output folder; one line that names the argument.
        OSError: the disk failed or is full.
    """
    workspace = Workspace(out, resume=resume)
    try:
        document = _run(recipe, workspace)
        workspace.publish()
    except BaseException:
        if workspace.abandon():
            logger.warning("checkpoints are kept in %s; run again with --resume to go on", workspace.partial)
        raise
    return document


def _run(recipe: Recipe, workspace: Workspace) -> dict[str, Any]:
    journal = Journal()
    with journal.stage("load"):
        data, baseline, shape = load(recipe)
    if recipe.train.epochs:
        with journal.stage("train"):
            train(baseline, data, recipe.train, "train", recipe, workspace, journal)
    elif recipe.model.weights is None:
        journal.warnings.append("the baseline was never trained: its weights are random (no weights, no train.epochs)")
    model, plans = copy.deepcopy(baseline), list[ShrinkPlan]()
    for number, stage in enumerate(recipe.compress):
        name = f"{number + 1}-{stage.method}"
        if stage.from_scratch:
            torch.manual_seed(recipe.train.seed)
            model, plans = build_model(recipe, data), []
        with journal.stage(name):
            model = prune(model, data, stage, name, recipe, workspace, journal)
        if stage.shrink:
            with journal.stage(f"{name} shrink"):
                plans.append(shrink(model, torch.zeros(1, *shape)))
                journal.notes += plans[-1].notes
    with journal.stage("export"):
        inspected = write_bundle(baseline, model, plans, data, recipe, workspace)
    with journal.stage("check"):
        document = runtime_check.verify(
            workspace.bundle,
            max_drop=recipe.check.max_drop,
            min_speedup=recipe.check.min_speedup,
            max_latency_ms=recipe.check.max_latency_ms,
            threads=recipe.check.threads,
            seconds=recipe.check.seconds,
            data=((inputs.numpy(), labels.numpy()) for inputs, labels in data.loader("test")),
        )
    return finish_report(document, inspected, recipe, workspace, journal)


def load(recipe: Recipe) -> tuple[Dataset, nn.Module, tuple[int, int, int]]:
    """Data and model that fit each other, weights loaded."""
    info = describe(recipe.model.source, recipe.model.args)
    data = open_data(recipe.data, input_shape=info.input_shape, fixed_size=info.fixed_size, seed=recipe.train.seed)
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, data)
    if recipe.model.weights is not None:
        load_weights(model, recipe.model.weights)
    check_input(model, input_shape=data.input_shape, num_classes=data.num_classes)
    return data, model, data.input_shape


def build_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """The recipe's network with fresh weights."""
    return build(
        recipe.model.source,
        args=recipe.model.args,
        num_classes=data.num_classes,
        in_channels=data.input_shape[0],
    )


def train(
    model: nn.Module,
    data: Dataset,
    section: TrainSection,
    name: str,
    recipe: Recipe,
    workspace: Workspace,
    journal: Journal,
    *,
    pruner: Method | None = None,
    calibration: Loader | None = None,
) -> None:
    """One training with its own checkpoint; the model ends on the CPU, in eval mode.

    With ``calibration`` batches, the accuracy after an epoch is that with BatchNorm statistics measured anew, as
    they will be when the stage ends: running ones still belong to filters that have just come or gone.
    """
    model.to(device_of(section))
    test = data.loader("test", batch_size=512)

    def evaluate(trained: nn.Module) -> float:
        if calibration is not None:
            trained = copy.deepcopy(trained)
            recalibrate(trained, calibration, limit=10)
        return accuracy(trained, test)

    records = fit(
        model,
        data.loader("train", batch_size=section.batch_size, seed=section.seed, augment=section.augment and None),
        section.settings(),
        pruner=pruner,
        evaluate=evaluate,
        checkpoint=workspace.checkpoints / f"{name}.ckpt",
        fingerprint=fingerprint(recipe, name),
        label=name,
    )
    model.cpu().eval()
    journal.trained(name, records)


def prune(
    model: nn.Module,
    data: Dataset,
    stage: StageSection,
    name: str,
    recipe: Recipe,
    workspace: Workspace,
    journal: Journal,
) -> nn.Module:
    """One compress stage: attach, train, finish, fold, and BatchNorm statistics of the model that is left."""
    section = recipe.stage_train(stage)
    loader = data.loader("train", batch_size=section.batch_size, seed=section.seed)
    total = len(loader) * section.epochs
    pruner = stage.pruner().planned(total, section.settings().learning_rate.drops(total))
    model.to(device_of(section))
    pruner.attach(model, loader)
    calibration = None
    if stage.recalibrates(section.epochs):
        calibration = data.loader("train", batch_size=section.batch_size, seed=section.seed, augment=False)
    if section.epochs:
        train(model, data, section, name, recipe, workspace, journal, pruner=pruner, calibration=calibration)
    pruner.finish()
    journal.masks += [{"stage": name, **asdict(record)} for record in pruner.history]
    fold(model)
    if calibration is not None:
        recalibrate(model, calibration)
    return model.cpu().eval()


def write_bundle(
    baseline: nn.Module,
    model: nn.Module,
    plans: list[ShrinkPlan],
    data: Dataset,
    recipe: Recipe,
    workspace: Workspace,
) -> tuple[ModelReport, ModelReport]:
    """Both ONNX files, the golden sample, the shrunk torch model and the manifest."""
    folder, example = workspace.bundle, torch.zeros(1, *data.input_shape)
    settings = recipe.export
    export(
        model,
        example,
        folder / "model.onnx",
        encoding=settings.encoding,
        values=settings.values,
        dynamic_batch=settings.dynamic_batch,
        metadata=metadata(model, data, recipe),
    )
    export(
        baseline,
        example,
        folder / "dense.onnx",
        encoding="dense",
        dynamic_batch=settings.dynamic_batch,
        metadata=metadata(baseline, data, recipe),
    )
    save_shrunk(model, plans, folder)
    inputs, labels = data.sample("test", golden_samples(data))
    write_golden(folder, inputs.numpy(), torch_outputs(model, inputs), labels.numpy())
    inspected = inspect(folder / "dense.onnx"), inspect(folder / "model.onnx")
    write_manifest(
        folder,
        recipe=recipe.resolved(),
        seed=recipe.train.seed,
        figures={"baseline": figures(inspected[0]), "compressed": figures(inspected[1])},
        extra={"preprocessing": preprocessing(data)},
    )
    return inspected


def metadata(model: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, str]:
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
        "recipe": json.dumps(recipe.resolved()),
        "metrics": json.dumps(metrics),
        "versions": json.dumps(versions()),
        "preprocessing": json.dumps(preprocessing(data)),
    }


def finish_report(
    document: dict[str, Any],
    inspected: tuple[ModelReport, ModelReport],
    recipe: Recipe,
    workspace: Workspace,
    journal: Journal,
) -> dict[str, Any]:
    """Add what only the run knows, and write report.json and report.html into the bundle."""
    document |= {
        "stages": journal.stages,
        "recipe": recipe.resolved(),
        "layers": layers(*inspected),
        "training": journal.training,
        "masks": journal.masks,
        "notes": journal.notes,
    }
    document["verdict"]["warnings"] += journal.warnings
    write_json(workspace.bundle / "report.json", document)
    (workspace.bundle / "report.html").write_text(render(document), encoding="utf-8")
    manifest = json.loads((workspace.bundle / "manifest.json").read_text(encoding="utf-8"))
    write_manifest(
        workspace.bundle,
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


def device_of(section: TrainSection) -> torch.device:
    """The device to train on: the first GPU where there is one, unless the recipe names another."""
    if section.device != "auto":
        try:
            device = torch.device(section.device)
            torch.empty(0, device=device)
            return device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"train.device: {section.device!r} cannot be used here; write auto, cpu or cuda"
            ) from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(recipe: Recipe, name: str) -> str:
    """What a checkpoint belongs to: everything that decides the weights, and the stage."""
    document: Mapping[str, Any] = recipe.resolved()
    decisive = {key: document[key] for key in ("model", "data", "train", "compress")}
    return hashlib.sha256(json.dumps([name, decisive], sort_keys=True, default=str).encode()).hexdigest()
