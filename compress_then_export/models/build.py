"""From a source and arguments to a network that fits the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compress.suggestion import did_you_mean
from compress_then_export.models.errors import ModelError
from compress_then_export.models.source import ModelInfo, Source, one_line, resolve


def describe(source: str, args: Mapping[str, Any] | None = None) -> ModelInfo:
    """Return what is known of a model without building it: its natural input above all.

    Raises:
        ModelError: the source names nothing known.
    """
    return resolve(source, _checked_args(args)).info


def build(
    source: str,
    *,
    args: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> nn.Module:
    """Build a network with fresh weights (drawn from torch's global random state).

    Args:
        source: ``builtin:NAME``, ``torchvision:NAME`` or ``python:package.module:factory``.
        args: keyword arguments of the network or factory.
        num_classes: classes of the data; passed on where the network takes it and args does not set it.
        in_channels: image channels of the data; passed on likewise (torchvision's networks always take 3).

    Raises:
        ModelError: unknown source or argument (with a suggestion), a wrong value, num_classes or in_channels
            that contradict args, or a factory that fails or returns no torch.nn.Module.
    """
    given = _checked_args(args)
    resolved = resolve(source, given)
    _check_names(source, given, resolved)
    adapted = dict(resolved.settings) | given
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is None:
            continue
        if name in given and given[name] != value:
            raise ModelError(
                f"args.{name}={given[name]!r} contradicts the data, which has {value}; leave args.{name} out"
            )
        if resolved.accepts is not None and name in resolved.accepts:
            adapted[name] = value
        elif name == "in_channels" and source.startswith("torchvision:") and value != 3:
            raise ModelError(f"{source} takes 3-channel images but the data has {value}; set data resize: true")
    try:
        model = resolved.factory(**adapted)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{source} cannot be built{_arguments(given)}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{source} returned a {type(model).__name__}; the factory must return a torch.nn.Module")
    return model


def check_input(model: nn.Module, *, input_shape: tuple[int, int, int], num_classes: int | None = None) -> None:
    """Run one blank image through the model in evaluation mode; the model is left as it was.

    Raises:
        ModelError: the model does not take images of this shape, returns something else than one tensor
            [N, classes], or another number of classes than num_classes.
    """
    shape = "x".join(map(str, input_shape))
    parameter = next(model.parameters(), torch.zeros(1))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.zeros(2, *input_shape, device=parameter.device, dtype=parameter.dtype))
    except Exception as error:
        raise ModelError(f"the model does not take {shape} inputs: {one_line(error)}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(output, torch.Tensor):
        raise ModelError(f"the model returns a {type(output).__name__} for {shape} inputs, not one tensor of logits")
    if output.ndim != 2 or output.shape[0] != 2:
        raise ModelError(f"the model returns shape {tuple(output.shape)} for two {shape} inputs, not (2, classes)")
    if num_classes is not None and output.shape[1] != num_classes:
        raise ModelError(f"the model has {output.shape[1]} outputs but the data has {num_classes} classes")


def _checked_args(args: Mapping[str, Any] | None) -> dict[str, Any]:
    if args is None:
        return {}
    if not isinstance(args, Mapping) or not all(isinstance(name, str) for name in args):
        raise ModelError("args must map argument names to values")
    return dict(args)


def _check_names(source: str, given: Mapping[str, Any], resolved: Source) -> None:
    for name in given:
        if name in resolved.settings and name != "weights" and resolved.accepts and name not in resolved.accepts:
            raise ModelError(f"args.{name} is part of the name {source!r}; choose another model instead")
        if resolved.accepts is not None and name not in resolved.accepts and name != "weights":
            raise ModelError(f"{source} has no argument {name!r} (args.{name}){did_you_mean(name, resolved.accepts)}")
        if name in ("num_classes", "in_channels") and not (isinstance(given[name], int) and given[name] > 0):
            raise ModelError(f"args.{name} must be a whole number of at least 1, got {given[name]!r}")


def _arguments(given: Mapping[str, Any]) -> str:
    if not given:
        return ""
    values = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return " with args " + re.sub(r"\s+", " ", values)
