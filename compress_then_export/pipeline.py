"""The whole path: model -> train -> (prune -> fold -> shrink)* -> export -> check -> report."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
from compress_then_export.models import ModelError, build, check_input, describe, load_weights
from compress_then_export.recipe import Recipe, RecipeError, StageSection, TrainSection
from compress_then_export.rehearsal import device_of, planned_pruners, rehearse, rehearse_stages
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
    work = begin(recipe, workspace)
    for number in range(1, len(recipe.compress) + 1):
        compress_stage(work, number)
    return deliver(work)


class Place(Protocol):
    """Where a run keeps checkpoints, and makes its bundle."""

    @property
    def checkpoints(self) -> Path:
        """Folder with one checkpoint a training."""

    @property
    def bundle(self) -> Path:
        """Folder of the bundle while it is being made."""


@dataclass(kw_only=True)
class Work:
    """A run between two stages: the model so far, and all that belongs to it."""

    recipe: Recipe
    data: Dataset
    place: Place
    journal: Journal
    pruners: list[Method]
    baseline: nn.Module
    trained: bool
    model: nn.Module
    plans: list[ShrinkPlan] = field(default_factory=list)
    frozen: Mapping[str, FrozenValues] = field(default_factory=dict)


def begin(recipe: Recipe, place: Place, others: Sequence[Recipe] = ()) -> Work:
    """Load and rehearse everything, ``others`` of the same model and data too, and train the baseline if asked to."""
    journal = Journal()
    with journal.stage("load"):
        data, baseline, _ = load(recipe)
        pruners = planned_pruners(recipe, data)
        rehearse(recipe, baseline, pruners, data)
        for other in others:
            rehearse_stages(other, baseline, planned_pruners(other, data), data)
    if recipe.train.epochs:
        with journal.stage("train"):
            mark = fingerprint(recipe, stages=0)
            train(baseline, data, recipe.train, "train", mark, place, journal)
    return Work(
        recipe=recipe,
        data=data,
        place=place,
        journal=journal,
        pruners=pruners,
        baseline=baseline,
        trained=bool(recipe.train.epochs or recipe.model.weights is not None),
        model=copy.deepcopy(baseline),
    )


def compress_stage(work: Work, number: int) -> None:
    """Compress stage ``number``, counted from 1: prune or train, fold, shrink.

    Where nothing was trained before, the network of a stage that only trains becomes the baseline.
    """
    recipe, journal = work.recipe, work.journal
    stage, pruner = recipe.compress[number - 1], work.pruners[number - 1]
    name = f"{number}-{stage.method}"
    if stage.from_scratch:
        torch.manual_seed(recipe.train.seed)
        work.model, work.plans = build_model(recipe, work.data), []
    pruner = pruner.kept_in(work.place.checkpoints / name)
    with journal.stage(name):
        mark, section = fingerprint(recipe, stages=number), recipe.stage_train(stage)
        work.model = prune(
            work.model, work.baseline, work.data, stage, section, pruner, name, mark, work.place, journal
        )
    work.frozen = pruner.run.frozen
    if pruner.run.plan is not None:
        work.plans.append(pruner.run.plan)
        journal.notes += pruner.run.plan.notes
    if not pruner.cuts:
        with journal.stage(f"{name} one-shot cuts"):
            test = work.data.loader("test", batch_size=512)
            networks = [("train", work.baseline)] * work.trained + [(name, work.model)]
            journal.cuttable(networks, test, device_of(section))
        if not work.trained:
            work.baseline, work.trained = copy.deepcopy(work.model), section.epochs > 0
    if stage.shrink:
        with journal.stage(f"{name} shrink"):
            example = torch.zeros(1, *work.data.input_shape)
            work.plans.append(shrink(work.model, example, round_to=stage.dead_rounded_to))
            journal.notes += work.plans[-1].notes


def deliver(work: Work) -> dict[str, Any]:
    """Export, check and report; returns the report document."""
    recipe, journal, folder = work.recipe, work.journal, work.place.bundle
    if not work.trained:
        journal.warnings.append("the baseline was never trained: its weights are random (no weights, no train.epochs)")
    resolved = recipe.resolved(work.pruners)
    with journal.stage("export"):
        inspected = write_bundle(
            work.baseline, work.model, work.plans, work.frozen, work.data, recipe, resolved, folder, journal
        )
    with journal.stage("check"):
        document = runtime_check.verify(
            folder,
            max_drop=recipe.check.max_drop,
            min_speedup=recipe.check.min_speedup,
            max_latency_ms=recipe.check.max_latency_ms,
            threads=recipe.check.threads,
            seconds=recipe.check.seconds,
            kernels=recipe.check.kernels,
            data=((inputs.numpy(), labels.numpy()) for inputs, labels in work.data.loader("test")),
        )
    return finish_report(document, inspected, resolved, folder, journal)


def load(recipe: Recipe) -> tuple[Dataset, nn.Module, tuple[int, int, int]]:
    """Data and model that fit each other, weights loaded."""
    try:
        info = describe(recipe.model.source, recipe.model.args)
    except ModelError as error:
        raise RecipeError(f"model.source: {error}") from error
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
    place: Place,
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
        checkpoint=place.checkpoints / f"{name}.ckpt",
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
    place: Place,
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
            model, data, section, label, mark, place, journal,
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
