"""Make a shrink plan that is proven on the model itself: propose, try on a copy, give up what is guilty, apply."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from compress.shrink.apply import apply_plan
from compress.shrink.channels import Channels, trace_channels
from compress.shrink.constants import Constants, measure_constants
from compress.shrink.dead import find_dead, make_readers
from compress.shrink.layers import is_fixed_map, is_layer
from compress.shrink.plan import ShrinkPlan
from compress.shrink.propose import Analysis
from compress.shrink.trial import Trial, accept, to_dtype

log = logging.getLogger(__name__)


def shrink(model: nn.Module, example_inputs: Tensor | tuple[Any, ...], *, round_to: int = 1) -> ShrinkPlan:
    """Really remove the channels of a masked model that do not matter. `model` is changed in place.

    A channel goes when nothing reads it, or when it carries a constant that its readers can absorb; chains of
    such channels go together. The shrunk model computes the same function in eval mode: this is checked on a copy
    before `model` is touched. What cannot be followed stays, and the plan's notes say why; in the worst case the
    plan is empty and the model unchanged.

    Args:
        model: a plain model (`fold` it first). Train/eval modes, requires_grad, hooks and the random state stay;
            cut parameters are new objects, so build the optimizer afterwards.
        example_inputs: a tensor, or the tuple of positional arguments, on the model's device. The first dimension
            is the batch; values do not matter much, shapes do.
        round_to: keep dead channels so that every layer has a multiple of this many outputs (fast kernels like
            multiples of 4, 8 or 16).

    Returns:
        The plan that was applied; `apply_plan` replays it, `save_shrunk` stores it beside the weights.

    Raises:
        ValueError: round_to is not a positive whole number, the model is parametrized or empty, or it does not run
            on the example inputs.
    """
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to must be a whole number of at least 1, got {round_to!r}")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    _require_plain(model)
    with _undisturbed(model):
        plan = _search(model, inputs, round_to)
    for note in plan.notes:
        log.info("shrink: %s", note)
    apply_plan(model, plan)
    return plan


def _search(model: nn.Module, inputs: tuple[Any, ...], round_to: int) -> ShrinkPlan:
    trial = Trial(model, inputs)
    if not trial.usable:
        return ShrinkPlan(notes=tuple(trial.notes))
    notes: list[str] = []
    channels = _channels(model, inputs, notes)
    if channels is None:
        return ShrinkPlan(notes=tuple(notes))
    constants = _constants(model, inputs, notes)
    analysis = Analysis(model=model, channels=channels, readers=make_readers(model, constants), round_to=round_to)
    dead = find_dead(channels, analysis.readers, given_up=frozenset())
    candidates = sorted({int(part) for part in channels.part[dead]})
    everything = frozenset(int(part) for part in channels.part)
    differences: dict[frozenset[int], float | None] = {frozenset(): 0.0}

    def works(chosen: frozenset[int]) -> bool:
        differences[chosen] = trial.difference(analysis.plan(everything - chosen))
        return differences[chosen] is not None

    accepted = accept(candidates, works)
    given_up = everything - accepted
    unseen = [name for name, row in channels.outputs.items() if name not in constants and (row < 0).all()]
    if constants and unseen:
        some = ", ".join(unseen[:4]) + (f" and {len(unseen) - 4} more" if len(unseen) > 4 else "")
        notes.append(f"never called in eval mode and left as they are: {some}")
    return replace(
        analysis.plan(given_up),
        notes=(*notes, *analysis.notes(frozenset(candidates) - accepted)),
        difference=differences[accepted] or 0.0,
    )


def _channels(model: nn.Module, inputs: tuple[Any, ...], notes: list[str]) -> Channels | None:
    problem = ""
    for sample in (_first_sample(inputs), inputs):
        try:
            with torch.enable_grad():
                return trace_channels(copy.deepcopy(model).eval(), sample)
        except Exception as error:  # whatever the dependency graph trips over: an unshrunk model is a right one
            problem = f"{type(error).__name__}: {error}"
    notes.append(f"nothing was removed: the dependency graph cannot follow this model ({problem})")
    return None


def _constants(model: nn.Module, inputs: tuple[Any, ...], notes: list[str]) -> Constants:
    problem = ""
    for dtype in (torch.float64, None):
        trial = copy.deepcopy(model).eval()
        try:
            if dtype is None:
                return measure_constants(trial, inputs)
            return measure_constants(trial.to(dtype), to_dtype(inputs, dtype))
        except Exception as error:  # a fixed batch size, a dtype of its own: then only unread channels are found
            problem = f"{type(error).__name__}: {error}"
    notes.append(f"constant channels stay: the model does not run on a batch of noise samples ({problem})")
    return {}


def _first_sample(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """One sample is enough for the graph, and saves memory; only where every tensor is batched alike."""
    sizes = {x.shape[0] if x.dim() else 0 for x in inputs if isinstance(x, Tensor)}
    return (
        tuple(x[:1] if isinstance(x, Tensor) else x for x in inputs) if len(sizes) == 1 and 0 not in sizes else inputs
    )


def _require_plain(model: nn.Module) -> None:
    if next(model.parameters(), None) is None:
        raise ValueError("model: it has no parameters, so there is nothing to shrink")
    for name, module in model.named_modules():
        wrapped = is_layer(module) and not is_fixed_map(module) and "weight" not in module._parameters
        if wrapped or is_parametrized(module):
            raise ValueError(f"model: {name or 'the model'} is parametrized; fold(model) before shrink(model)")


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Keep the caller's random state, and leave his grad and inference modes out of the analysis."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
        yield
