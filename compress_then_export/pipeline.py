"""The whole path: model -> train -> (prune -> fold -> shrink)* -> export -> check -> report."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import runtime_check
from compress import fold
from compress.frozen import FrozenValues
from compress.methods.base import Method
from compress.recalibration import recalibrate
from compress.shrink import ShrinkPlan, shrink
from compress.train import accuracy, fit
from compress_then_export.data import Dataset, Loader, open_data
from compress_then_export.delivery import finish_report, write_bundle
from compress_then_export.journal import Journal
from compress_then_export.models import build, check_input, describe, load_weights
from compress_then_export.recipe import Recipe, StageSection, TrainSection
from compress_then_export.rehearsal import device_of, planned_pruners, rehearse
from compress_then_export.workspace import Workspace

logger = logging.getLogger(__name__)


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
        pruners = planned_pruners(recipe, data)
        rehearse(recipe, baseline, pruners, data)
    if recipe.train.epochs:
        with journal.stage("train"):
            mark = fingerprint(recipe, stages=0)
            train(baseline, data, recipe.train, "train", mark, workspace, journal)
    elif recipe.model.weights is None:
        journal.warnings.append("the baseline was never trained: its weights are random (no weights, no train.epochs)")
    model, plans = copy.deepcopy(baseline), list[ShrinkPlan]()
    frozen: Mapping[str, FrozenValues] = {}
    for number, (stage, pruner) in enumerate(zip(recipe.compress, pruners, strict=True), start=1):
        name = f"{number}-{stage.method}"
        if stage.from_scratch:
            torch.manual_seed(recipe.train.seed)
            model, plans = build_model(recipe, data), []
        pruner = pruner.kept_in(workspace.checkpoints / name)
        with journal.stage(name):
            mark = fingerprint(recipe, stages=number)
            section = recipe.stage_train(stage)
            model = prune(model, baseline, data, stage, section, pruner, name, mark, workspace, journal)
        frozen = pruner.run.frozen
        if pruner.run.plan is not None:
            plans.append(pruner.run.plan)
            journal.notes += pruner.run.plan.notes
        if stage.shrink:
            with journal.stage(f"{name} shrink"):
                plans.append(shrink(model, torch.zeros(1, *shape), round_to=stage.round_to))
                journal.notes += plans[-1].notes
    resolved = recipe.resolved(pruners)
    with journal.stage("export"):
        inspected = write_bundle(baseline, model, plans, frozen, data, recipe, resolved, workspace.bundle, journal)
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
    return finish_report(document, inspected, resolved, workspace.bundle, journal)


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
    mark: str,
    workspace: Workspace,
    journal: Journal,
    *,
    pruner: Method | None = None,
    teacher: nn.Module | None = None,
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
        teacher=None if teacher is None else copy.deepcopy(teacher).to(device_of(section)).eval(),
        evaluate=evaluate,
        checkpoint=workspace.checkpoints / f"{name}.ckpt",
        fingerprint=mark,
        label=name,
    )
    model.cpu().eval()
    journal.trained(name, records)


def prune(
    model: nn.Module,
    baseline: nn.Module,
    data: Dataset,
    stage: StageSection,
    section: TrainSection,
    pruner: Method,
    name: str,
    mark: str,
    workspace: Workspace,
    journal: Journal,
) -> nn.Module:
    """One compress stage: attach, train, finish, fold, and BatchNorm statistics of the model that is left.

    ``baseline`` is the teacher where the stage's training wants one. A method that wants several trainings gets them,
    each with its own checkpoint.
    """
    loader = data.loader("train", batch_size=section.batch_size, seed=section.seed)
    model.to(device_of(section))
    pruner.attach(model, loader)
    calibration = None
    if stage.recalibrates(section.epochs):
        calibration = data.loader("train", batch_size=section.batch_size, seed=section.seed, augment=False)
    for number in range(1, pruner.trainings + 1) if section.epochs else ():
        label = name if pruner.trainings == 1 else f"{name}-{number}-of-{pruner.trainings}"
        train(
            model, data, section, label, mark, workspace, journal,
            pruner=pruner, teacher=baseline if section.teacher else None, calibration=calibration,
        )  # fmt: skip
    pruner.finish()
    journal.warnings += pruner.run.warnings
    journal.notes += [f"{name}: {finding} {value:.6g}" for finding, value in pruner.run.findings.items()]
    if not pruner.run.frozen:  # the report's pictures of masks show what is hidden, and frozen weights are not
        journal.masks += [{"stage": name, **asdict(record)} for record in pruner.history]
    fold(model)
    if calibration is not None:
        recalibrate(model, calibration)
    return model.cpu().eval()


def fingerprint(recipe: Recipe, *, stages: int) -> str:
    """What a checkpoint belongs to: all that decides the weights up to and with that many compress stages."""
    document: dict[str, Any] = recipe.resolved()
    decisive = {key: document[key] for key in ("model", "data", "train")}
    decisive["compress"] = document["compress"][:stages]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
    if recipe.model.weights is not None:
        digest.update(recipe.model.weights.read_bytes())
    return digest.hexdigest()
