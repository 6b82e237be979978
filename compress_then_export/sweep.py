"""Families: one trained network, cut to several sparsities, a checked bundle for each."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from compress.methods import available, settings_of
from compress_then_export.family import family_document, write_family
from compress_then_export.pipeline import Work, begin, compress_stage, deliver, fingerprint
from compress_then_export.recipe import Recipe, RecipeError, StageSection, parse_recipe
from compress_then_export.rehearsal import planned_pruners
from compress_then_export.workspace import Workspace, write_json

logger = logging.getLogger(__name__)


def parse_sparsities(text: str) -> tuple[float, ...]:
    """The list after ``--sparsity``: "0.5,0.8,0.9".

    Raises:
        RecipeError: no numbers, not ascending, or not in [0, 1).
    """
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part.replace("_", "?"))  # Python's 0.1_0 is a slip of the finger here
        except ValueError as error:
            raise RecipeError(f"--sparsity: {part.strip()!r} is no number; write a list such as 0.5,0.8,0.9") from error
        if not 0 <= value < 1:
            raise RecipeError(f"--sparsity: {value:g} is not a fraction in [0, 1)")
        if found and value <= found[-1]:
            raise RecipeError(f"--sparsity: {value:g} after {found[-1]:g} is out of order; write them ascending")
        found.append(value + 0.0)  # no minus before a zero
    return tuple(found)


def sweep(recipe: Recipe, sparsities: Sequence[float], out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train once, cut to each sparsity, and write a folder of bundles with one report over all of them.

    The last stage of the recipe whose method has a sparsity does the cutting, with that and all later stages done for
    each sparsity; where there is none, a one-shot stage is added at the end.

    Args:
        recipe: a validated recipe.
        sparsities: ascending, in [0, 1).
        out: folder of the family; it appears when all of it is done.
        resume: go on with what a sweep that stopped had finished: trainings and whole members.

    Returns:
        The document of the family's report.json.

    Raises:
        ValueError: see :func:`compress_then_export.pipeline.run`.
        OSError: the disk failed or is full.
    """
    cut, recipes = member_recipes(recipe, sparsities)
    workspace = Workspace(out, resume=resume)
    try:
        shared, finished = Shared(recipes, cut, workspace), workspace.checkpoints / "finished"
        names = [f"sparsity-{sparsity}" for sparsity in sparsities]
        for path in sorted(finished.glob("*/done.json")):
            if path.parent.name not in names:
                logger.warning("%s is finished but not in --sparsity; it goes when all is done", path.parent.name)
        documents = {}
        for name, member in zip(names, recipes, strict=True):
            documents[name] = _member(shared, member, name, finished / name)
            _link(finished / name / "bundle", workspace.bundle / name)
        document = family_document(documents, sparsities, cut)
        write_family(document, shared.work, workspace.bundle)
        workspace.publish()
    except BaseException:
        if workspace.abandon():
            logger.warning("what is done is kept in %s; run again with --resume to go on", workspace.partial)
        raise
    return document


def member_recipes(recipe: Recipe, sparsities: Sequence[float]) -> tuple[int, list[Recipe]]:
    """The number of the stage that cuts, from 1, and the recipe of each member.

    Raises:
        RecipeError: a sparsity that the stage cannot reach.
    """
    methods = available()
    stages = list(recipe.compress)
    cutting = [
        number
        for number, stage in enumerate(stages, start=1)
        if any(setting.name == "sparsity" for setting in settings_of(methods[stage.method]))
    ]
    if not cutting:
        stages.append(StageSection(method="one_shot"))
        cutting = [len(stages)]
    cut, recipes = cutting[-1], []
    for sparsity in sparsities:
        document = recipe.model_copy(update={"compress": tuple(stages)}).model_dump(mode="json")
        document["compress"][cut - 1]["sparsity"] = sparsity
        with _asked_for_by_option(cut):
            recipes.append(parse_recipe(document))
    return cut, recipes


@contextmanager
def _asked_for_by_option(cut: int) -> Iterator[None]:
    """Errors about the sparsity of the stage that cuts name the option that it is from."""
    try:
        yield
    except RecipeError as error:
        key = f"compress.{cut - 1}.sparsity"
        if not str(error).startswith(key):
            raise
        raise RecipeError(f"--sparsity{str(error).removeprefix(key)}") from error


@dataclass
class Shared:
    """What all members have in common, made when the first of them needs it."""

    recipes: Sequence[Recipe]
    cut: int
    workspace: Workspace

    @cached_property
    def work(self) -> Work:
        """The run up to the stage that cuts, after a rehearsal of every member."""
        with _asked_for_by_option(self.cut):
            work = begin(self.recipes[0], self.workspace, self.recipes[1:])
        for number in range(1, self.cut):
            compress_stage(work, number)
        return work


@dataclass(frozen=True)
class _Place:
    checkpoints: Path
    bundle: Path


def _member(shared: Shared, recipe: Recipe, name: str, folder: Path) -> dict[str, Any]:
    """The report document of one member, whose bundle is in ``folder`` afterwards; as it is where that was done."""
    mark, done = _mark(recipe), folder / "done.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == mark:
        logger.info("%s: done before", name)
        report: dict[str, Any] = json.loads((folder / "bundle" / "report.json").read_text(encoding="utf-8"))
        return report
    common = shared.work
    logger.info("%s ...", name)
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    (folder / "bundle").mkdir(parents=True)
    done.unlink(missing_ok=True)
    work = replace(
        common,
        recipe=recipe,
        place=_Place(folder, folder / "bundle"),
        journal=copy.deepcopy(common.journal),
        pruners=planned_pruners(recipe, common.data),
        model=copy.deepcopy(common.model),
        plans=list(common.plans),
    )
    for number in range(shared.cut, len(recipe.compress) + 1):
        compress_stage(work, number)
    report = deliver(work)
    write_json(done, mark)
    return report


def _link(source: Path, target: Path) -> None:
    """The same files under another folder; copied where the disk has no links."""
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, there)
        except OSError:
            shutil.copy2(path, there)


def _mark(recipe: Recipe) -> str:
    """What a finished member belongs to: all that decides its bundle."""
    resolved = recipe.resolved()
    rest = json.dumps([resolved["export"], resolved["check"]], sort_keys=True)
    return fingerprint(recipe, stages=len(recipe.compress)) + hashlib.sha256(rest.encode()).hexdigest()
