"""Before anything is trained: every stage is rehearsed on a copy and the model is traced, so that errors come early."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from compress import fold
from compress.freezenet_checkpoint import fitting
from compress.methods.base import Method
from compress_then_export.data import Dataset
from compress_then_export.recipe import Recipe, RecipeError, TrainSection
from compress_then_export.stopwatch import OnnxStopwatch
from exporters.graph import build_graph


def planned_pruners(recipe: Recipe, data: Dataset) -> list[Method]:
    """The method of every stage with its step counts filled in from the length of its training.

    Raises:
        RecipeError: step counts that do not fit it; one line that names the key of the recipe.
    """
    pruners = []
    for number, stage in enumerate(recipe.compress):
        section = recipe.stage_train(stage)
        total = len(data.loader("train", batch_size=section.batch_size, seed=section.seed)) * section.epochs
        with _named(f"compress.{number}."):
            pruner = stage.pruner().planned(total, section.settings().learning_rate.drops(total))
            pruners.append(pruner.timed_by(OnnxStopwatch(data.input_shape, threads=recipe.check.threads[0])))
    return pruners


def rehearse(recipe: Recipe, model: nn.Module, pruners: Sequence[Method], data: Dataset) -> None:
    """Raise what would stop the run later: an unknown device, a pattern or budget that does not fit the
    model, a model that torch.export cannot trace. The model is left as it is.

    Raises:
        RecipeError: one line that names the key of the recipe.
        ExportError: the model cannot be traced; the message says where.
    """
    rehearse_stages(recipe, model, pruners, data)
    if recipe.train.epochs or any(recipe.stage_train(stage).epochs for stage in recipe.compress):
        example = torch.zeros(1, *data.input_shape)
        build_graph(model, example, dynamic_batch=recipe.export.dynamic_batch)


def rehearse_stages(recipe: Recipe, model: nn.Module, pruners: Sequence[Method], data: Dataset) -> None:
    """The part of :func:`rehearse` that attaches every stage to a copy of the model."""
    device_of(recipe.train)
    seeded = False
    for number, (stage, pruner) in enumerate(zip(recipe.compress, pruners, strict=True)):
        with _named(f"compress.{number}."):
            section = recipe.stage_train(stage)
            device_of(section)
            rehearsed, understudy = copy.deepcopy(pruner), copy.deepcopy(model)
            batches = data.loader("train", batch_size=section.batch_size, seed=section.seed)
            seeded = bool(fitting(fold(understudy), rehearsed.rehearse(understudy, batches).frozen))
    if recipe.export.encoding == "seeded" and not seeded:
        raise RecipeError(
            "export.encoding: seeded needs weights out of a seed, which a last stage {method: freezenet} without "
            "weight_decay leaves, and whole ones, not coefficients of filter bases; write auto"
        )


def device_of(section: TrainSection) -> torch.device:
    """The device to train on: the first GPU where there is one, unless the recipe names another."""
    if section.device != "auto":
        try:
            device = torch.device(section.device)
            torch.zeros(1, device=device).item()  # a "meta" device holds no values
            return device
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"train.device: {section.device!r} cannot be used here; write auto, cpu or cuda"
            ) from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the stage before messages that name a setting; those that name the model stand as they are."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("model:"):
            raise
        raise RecipeError(f"{where}{error}") from error
