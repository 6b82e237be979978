"""Where models come from: ``builtin:NAME``, ``torchvision:NAME`` or ``python:package.module:factory``."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from compress.suggestion import did_you_mean
from compress_then_export.models.catalogue import builtin_names, find_builtin
from compress_then_export.models.errors import ModelError

_KINDS = ("builtin", "torchvision", "python")
# Networks whose position embedding or windows are cut for one image size; all others pool globally.
_FIXED_SIZE_PREFIXES = ("vit_", "maxvit")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of a model before it is built.

    Attributes:
        source: the source as given.
        input_shape: natural input (channels, height, width) in pixels; None for a python: factory that has no
            attribute ``input_shape``.
        fixed_size: whether another height or width cannot work.
        summary: one line for people.
    """

    source: str
    input_shape: tuple[int, int, int] | None
    fixed_size: bool
    summary: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A resolved source: a factory with its preset settings, the argument names that it accepts (None: any
    name), and what is known of the model.
    """

    factory: Callable[..., Any]
    settings: Mapping[str, Any]
    accepts: frozenset[str] | None
    info: ModelInfo


def resolve(source: str, args: Mapping[str, Any]) -> Source:
    """Find the factory behind a source without building the model.

    Raises:
        ModelError: unknown kind, unknown name (with a suggestion), or a python: factory that is not there.
    """
    if not isinstance(source, str):
        raise ModelError(f"model source must be text such as 'builtin:resnet20', got {type(source).__name__}")
    kind, _, name = source.partition(":")
    if kind not in _KINDS or not name:
        known = [f"builtin:{each}" for each in builtin_names()]
        hint = did_you_mean(source if ":" in source else f"builtin:{source}", known)
        hint = hint if "did you mean" in hint else "; write builtin:NAME, torchvision:NAME or python:MODULE:FACTORY"
        raise ModelError(f"unknown model source {source!r}{hint}")
    if kind == "builtin":
        return _builtin(source, name, args)
    if kind == "torchvision":
        return _torchvision(source, name, args)
    return _python(source, name)


def _builtin(source: str, name: str, args: Mapping[str, Any]) -> Source:
    entry = find_builtin(name)
    if entry is None:
        raise ModelError(f"unknown builtin model {name!r}{did_you_mean(name, builtin_names())}")
    channels, height, width = entry.input_shape
    channels = args["in_channels"] if isinstance(args.get("in_channels"), int) else channels
    return Source(
        factory=entry.factory,
        settings=entry.settings,
        accepts=(_keywords(entry.factory) or frozenset()) - set(entry.settings),
        info=ModelInfo(
            source=source,
            input_shape=(channels, height, width),
            fixed_size=entry.fixed_size,
            summary=entry.summary,
        ),
    )


def _torchvision(source: str, name: str, args: Mapping[str, Any]) -> Source:
    from compress_then_export.vision import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ModelError(f"unknown torchvision classification model {name!r}{did_you_mean(name, names)}")
    if args.get("weights") is not None:
        raise ModelError("args.weights would start a download; save the weights to a file and name it in model.weights")
    builder = torchvision.models.get_model_builder(name)
    settings: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        # Their auxiliary heads return a tuple in training mode, which no method here expects.
        settings |= {"aux_logits": False, "init_weights": True}
    size = args.get("image_size")
    if not isinstance(size, int):
        size = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    # The builder takes **kwargs; the class that it returns knows their names.
    return Source(
        factory=builder,
        settings=settings,
        accepts=_keywords(get_type_hints(builder)["return"]),
        info=ModelInfo(
            source=source,
            input_shape=(3, size, size),
            fixed_size=name.startswith(_FIXED_SIZE_PREFIXES),
            summary=f"torchvision's {name}",
        ),
    )


def _python(source: str, path: str) -> Source:
    factory = import_factory(source, path)
    shape = getattr(factory, "input_shape", None)
    if shape is not None and not _is_shape(shape):
        raise ModelError(f"{source}: attribute input_shape must be (channels, height, width), got {shape!r}")
    return Source(
        factory=factory,
        settings={},
        accepts=_keywords(factory),
        info=ModelInfo(
            source=source,
            input_shape=None if shape is None else (shape[0], shape[1], shape[2]),
            fixed_size=False,
            summary=f"made by {path}",
        ),
    )


def import_factory(source: str, path: str) -> Callable[..., Any]:
    """Import ``package.module:factory``; modules beside the current folder are found too.

    Raises:
        ModelError: the path is malformed, the module or the factory is missing, or it cannot be called.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ModelError(f"{source!r} must read python:package.module:factory")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a console script does not see the current folder; last, so nothing is shadowed
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ModelError(
                f"{source}: there is no module {error.name!r}; install it or run beside its folder"
            ) from error
        raise ModelError(f"{source}: importing {module_name!r} needs the module {error.name!r}") from error
    except Exception as error:
        raise ModelError(f"{source}: importing {module_name!r} fails: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if factory is None:
        known = [name for name in vars(module) if not name.startswith("_")]
        raise ModelError(f"{source}: module {module_name!r} has no {attribute!r}{did_you_mean(attribute, known)}")
    if not callable(factory):
        raise ModelError(f"{source}: {attribute!r} is a {type(factory).__name__}, not something to call")
    named: Callable[..., Any] = factory
    return named


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple | list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)


def _keywords(factory: Callable[..., Any]) -> frozenset[str] | None:
    """Names that can be passed by keyword; None when the factory takes any (or cannot be asked)."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in by_name)
