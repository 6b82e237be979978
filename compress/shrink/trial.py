"""Cut a copy of the model, run it, and compare: the proof that a plan has to pass before it touches the model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from compress.shrink.apply import apply_plan
from compress.shrink.plan import ShrinkPlan

log = logging.getLogger(__name__)
_LIMIT = {torch.float64: 1e-9, torch.float32: 1e-5}  # float64 shows the algebra, float32 its rounding too


class Trial:
    """Runs copies of the model, cut by a plan, and compares them with the model before the cut."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.model = model
        self.notes: list[str] = []
        self.dtype = torch.float64
        self.batches = _probe_batches(inputs)
        try:
            with torch.no_grad():
                copy.deepcopy(model).eval()(*inputs)
        except Exception as error:
            raise ValueError(f"example_inputs: the model does not run on them: {error}") from error
        try:
            self.expected = self._run(None)
        except Exception:  # a model that insists on its own dtype is compared in it
            self.dtype = torch.float32
            self.expected = self._run(None)
        tensors = [leaf for leaf in self.expected if leaf.numel()]
        self.usable = bool(tensors) and all(bool(leaf.isfinite().all()) for leaf in tensors)
        if not self.usable:
            self.notes.append("nothing was removed: the model's outputs are not finite tensors, no cut can be checked")

    def difference(self, plan: ShrinkPlan) -> float | None:
        """Largest relative difference of an output, or None when it is too large or the cut model fails."""
        try:
            found = self._run(plan)
        except Exception as error:  # a wrong guess of the dependency graph shows as any error at all
            log.debug("shrink: a trial cut failed: %s", error)
            return None
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in self.expected]:
            return None
        largest = 0.0
        for a, b in zip(self.expected, found, strict=True):
            if a.numel():
                distance = float((a.double() - b.double()).abs().max())
                largest = max(largest, distance / max(float(a.double().abs().max()), 1e-30) if distance else 0.0)
        return largest if largest <= _LIMIT[self.dtype] else None

    def _run(self, plan: ShrinkPlan | None) -> list[Tensor]:
        model = copy.deepcopy(self.model).eval()
        if self.dtype == torch.float64:
            model = model.double()
        if plan is not None:
            apply_plan(model, plan)
        outputs: list[Tensor] = []
        with torch.no_grad():
            for batch in self.batches:
                cast = to_dtype(batch, self.dtype) if self.dtype == torch.float64 else batch
                outputs += [leaf.clone() for leaf in tree_leaves(model(*cast)) if isinstance(leaf, Tensor)]
        return outputs


def accept(parts: list[int], works: Callable[[frozenset[int]], bool]) -> frozenset[int]:
    """The parts that work together, found by halving: few calls when few are guilty."""
    accepted: frozenset[int] = frozenset()
    waiting = [parts] if parts else []
    while waiting:
        some = waiting.pop()
        if works(accepted | set(some)):
            accepted |= set(some)
        elif len(some) > 1:
            waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return accepted


def _probe_batches(inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The example, and the same shapes with random values of two sizes."""
    generator = torch.Generator().manual_seed(0)

    def random(x: Any, scale: float) -> Any:
        if not is_float(x):
            return x
        return (scale * torch.randn(x.shape, generator=generator)).to(x.device, x.dtype)

    return [inputs, *(tuple(random(x, scale) for x in inputs) for scale in (1.0, 10.0))]


def to_dtype(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The inputs with their floating-point tensors in `dtype`."""
    cast: tuple[Any, ...] = tree_map(lambda x: x.to(dtype) if is_float(x) else x, inputs)
    return cast


def is_float(x: Any) -> bool:
    """Whether `x` is a tensor of a floating-point type."""
    return isinstance(x, Tensor) and x.is_floating_point()
