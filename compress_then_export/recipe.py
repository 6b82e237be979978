"""The recipe: what to compress, with which data and methods, and what the result must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PlainValidator, PositiveInt, ValidationError
from pydantic_core import PydanticCustomError

from compress.checks import require
from compress.learning_rate import SCHEDULES, LearningRate, Schedule
from compress.methods import available, create, settings_of
from compress.methods.base import Method
from compress.suggestion import did_you_mean
from compress.train import OptimizerName, TrainSettings
from compress_then_export.yaml_text import load_yaml

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _multiple(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value != "auto" and not (whole and value > 0):  # type: ignore[operator]
        raise PydanticCustomError("multiple", "input should be a whole number above 0, or auto")
    return value


class RecipeError(ValueError):
    """The recipe is wrong: one line that names the key and the way out."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ModelSection(_Section):
    """Where the network comes from."""

    source: str
    weights: Path | None = None
    args: dict[str, Any] = Field(default_factory=dict)


class TrainSection(_Section):
    """Training or fine-tuning; a compress stage may override any key under its own ``train``."""

    epochs: int = 0
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    teacher: float = 0.0
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    augment: bool = True
    seed: int = 0
    device: str = "auto"

    def settings(self) -> TrainSettings:
        """The same as settings of the training loop."""
        fits = self.epochs <= 0 or 0 <= self.warmup_epochs < self.epochs
        require(fits, "warmup_epochs", self.warmup_epochs, f"0 or more and fewer than the {self.epochs} epochs")
        return TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            teacher=self.teacher,
            learning_rate=LearningRate(
                schedule=self.schedule,
                milestones=self.milestones,
                gamma=self.gamma,
                warmup=self.warmup_epochs / self.epochs if self.epochs else 0.0,
            ),
            seed=self.seed,
        )


class StageSection(BaseModel):
    """One compress stage: a method, its settings, its training, and what follows it.

    ``recalibrate``: measure BatchNorm statistics anew afterwards; by default where filters were removed, and
    where nothing was trained that could have updated them. ``from_scratch``: start from fresh weights, as the
    papers on pruning while training do. ``shrink``: really remove dead channels before the next stage;
    ``round_to``: keep so many of them that every layer has a multiple of this many; a method that chooses widths
    chooses such ones, and with ``auto`` measures which multiple is fastest.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str
    from_scratch: bool = False
    shrink: bool = True
    round_to: Annotated[int | Literal["auto"], PlainValidator(_multiple)] = 1
    recalibrate: bool | None = None
    train: dict[str, Any] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What the method itself is given; ``round_to`` too where it chooses widths."""
        own = dict(self.model_extra or {})
        method = available().get(self.method)
        if method is not None and any(field.name == "round_to" for field in settings_of(method)):
            own["round_to"] = self.round_to
        return own

    @property
    def dead_rounded_to(self) -> int:
        """What ``shrink`` is given; a method that measured which widths are fast has chosen them already."""
        return self.round_to if isinstance(self.round_to, int) else 1

    def recalibrates(self, epochs: int) -> bool:
        """Whether statistics are measured anew after a stage of that many epochs."""
        by_default = epochs == 0 or (self.model_extra or {}).get("structure") == "filters"
        return by_default if self.recalibrate is None else self.recalibrate

    def pruner(self) -> Method:
        """The method with its settings, step counts not yet filled in."""
        if self.round_to == "auto" and "round_to" not in self.settings:
            raise ValueError(f"round_to: auto is for methods that choose widths, {self.method} does not; give a number")
        return create(self.method, **self.settings)


class ExportSection(_Section):
    """The file that ships."""

    encoding: Literal["auto", "dense", "coo", "gap", "packed", "seeded"] = "auto"
    values: Literal["float32", "float16"] = "float32"
    quantize: Literal["none"] = "none"
    dynamic_batch: bool = True


class CheckSection(_Section):
    """What the file must hold, and how it is measured."""

    max_drop: FiniteFloat | None = 1.0
    min_speedup: _Positive | None = None
    max_latency_ms: _Positive | None = None
    threads: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    seconds: _Positive = 3.0
    kernels: bool = True


_SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSection,
    "train": TrainSection,
    "export": ExportSection,
    "check": CheckSection,
}


class Recipe(_Section):
    """Everything one run does, with every default filled in."""

    model: ModelSection
    data: dict[str, Any]
    train: TrainSection = Field(default_factory=TrainSection)
    compress: tuple[StageSection, ...] = ()
    export: ExportSection = Field(default_factory=ExportSection)
    check: CheckSection = Field(default_factory=CheckSection)

    def stage_train(self, stage: StageSection) -> TrainSection:
        """The training of one stage: that of the recipe with the stage's own keys over it."""
        inherited = {**self.train.model_dump(), "epochs": 0}
        return TrainSection(**{**inherited, **stage.train})

    def resolved(self, pruners: Sequence[Method] | None = None) -> dict[str, Any]:
        """The recipe as plain JSON data with all defaults that count, and the step counts of planned ``pruners``."""
        document = self.model_dump(mode="json")
        pruners = [stage.pruner() for stage in self.compress] if pruners is None else pruners
        for stage, pruner, written in zip(self.compress, pruners, document["compress"], strict=True):
            written |= {field.name: getattr(pruner, field.name) for field in settings_of(type(pruner))}
            written["train"] = self.stage_train(stage).model_dump(mode="json", exclude=set(pruner.decides))
        return document


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply ``KEY=VALUE`` overrides ("compress.0.sparsity=0.95").

    Relative files in the recipe are looked up from its own folder first.

    Raises:
        RecipeError: the file is missing, not YAML, or holds an unknown key or a wrong value.
    """
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe: cannot read {path} ({error})") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe: {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"recipe: {path} holds no mapping; it starts with 'model:' and 'data:'")
    document |= {key: _source(document[key]) for key in ("model", "data") if key in document}
    for override in overrides:
        _apply(document, override)
    recipe = parse_recipe(document)
    weights = recipe.model.weights
    if weights is not None and not weights.is_absolute() and (path.parent / weights).exists():
        model = recipe.model.model_copy(update={"weights": path.parent / weights})
        recipe = recipe.model_copy(update={"model": model})
    return recipe


def parse_recipe(document: Mapping[str, Any]) -> Recipe:
    """Validate a recipe, its stages' settings and schedules included.

    Raises:
        RecipeError: see :func:`read_recipe`.
    """
    data = _source(document.get("data"))
    if isinstance(data, Mapping) and data.get("source") is None:
        raise RecipeError("data.source: missing; every recipe needs it")
    sources = {key: _source(document[key]) for key in ("model", "data") if key in document}
    try:
        recipe = Recipe.model_validate({**document, **sources})
    except ValidationError as error:
        raise RecipeError(_first_line(error)) from error
    try:
        recipe.train.settings()
    except ValueError as error:
        raise RecipeError(f"train.{error}") from error
    for number, stage in enumerate(recipe.compress):
        _check_stage(recipe, stage, number)
    return recipe


def _check_stage(recipe: Recipe, stage: StageSection, number: int) -> None:
    where = f"compress.{number}"
    methods = available()
    if stage.method not in methods:
        raise RecipeError(f"{where}.method: there is no {stage.method!r}{did_you_mean(stage.method, methods)}")
    known = [field.name for field in settings_of(methods[stage.method])]
    own = [name for name in StageSection.model_fields if name != "method"]
    for key in stage.settings:
        if key not in known:
            hint = did_you_mean(key, [*known, *own])
            raise RecipeError(f"{where}.{key}: {stage.method} has no such setting{hint}")
    try:
        stage.pruner()
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}.{error}") from error
    for key in methods[stage.method].decides:
        if key in stage.train:
            raise RecipeError(
                f"{where}.train.{key}: {stage.method} decides it itself; leave it out, and see its own settings"
            )
    try:
        recipe.stage_train(stage).settings()
    except ValidationError as error:
        raise RecipeError(f"{where}.train.{_first_line(error, TrainSection)}") from error
    except ValueError as error:
        raise RecipeError(f"{where}.train.{error}") from error


def _source(section: object) -> object:
    """``data: digits`` is short for ``data: {source: digits}``; so with the model."""
    return {"source": section} if isinstance(section, str) else section


def _first_line(error: ValidationError, section: type[BaseModel] = Recipe) -> str:
    """The first problem as one line: key, what is wrong, and what was meant."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = map(str, problem["loc"])
        holder = _SECTIONS[parents[0]] if parents else section
        return f"{where}: unknown key{did_you_mean(key, holder.model_fields)}"
    if problem["type"] == "missing":
        return f"{where}: missing; every recipe needs it"
    if problem["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{where}: {problem['input']!r} is not a mapping of keys, such as {{source: ...}} or {{epochs: 3}}"
    if problem["type"] == "literal_error" and where.endswith("schedule"):
        return f"{where}: {problem['input']!r} is not one of {', '.join(SCHEDULES)}"
    message = problem["msg"][0].lower() + problem["msg"][1:].replace("valid tuple", "list")
    return f"{where}: {message}, not {problem['input']!r}"


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one dotted key; list items are addressed by number."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set: {override!r} is not KEY=VALUE, such as compress.0.sparsity=0.95")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: {text!r} is not a YAML value") from error
    *parents, last = key.split(".")
    node: Any = document
    for part in parents:
        node = node[_index(node, part, key)] if isinstance(node, list) else _child(node, part, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise RecipeError(f"--set {key}: {parents[-1]!r} holds a plain value, not keys")


def _child(node: Any, part: str, key: str) -> Any:
    if not isinstance(node, dict):
        raise RecipeError(f"--set {key}: nothing to set under {part!r}")
    return node.setdefault(part, {})


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(f"--set {key}: {part!r} is not an item of a list of {len(node)} (0 to {len(node) - 1})")
    return int(part)
