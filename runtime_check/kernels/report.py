"""Which layers of a session the kernels run, and why not the others."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnxruntime as ort

from runtime_check.errors import one_line
from runtime_check.kernels.provider import library

_NUMBERS = itertools.count(1)
_LAYERS: weakref.WeakKeyDictionary[ort.InferenceSession, tuple[Layer, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer as the provider saw it, after onnxruntime folded what is constant."""

    name: str
    operator: str
    nonzeros: int | None
    weights: int | None
    reason: str | None  # why onnxruntime runs it; None where the kernels do

    @property
    def claimed(self) -> bool:
        """Whether the sparse kernels run the layer."""
        return self.reason is None

    @property
    def sparsity(self) -> float | None:
        """Fraction of weights that are zero; None where the layer was refused before they were counted."""
        if self.nonzeros is None or not self.weights:
            return None
        return 1 - self.nonzeros / self.weights

    def to_json(self) -> dict[str, Any]:
        """One entry of a document's `kernels.layers`."""
        return {"name": self.name, "operator": self.operator, "sparsity": self.sparsity, "reason": self.reason}


def layers(session: ort.InferenceSession) -> tuple[Layer, ...]:
    """The layers of a session that `runtime_check.load` opened; empty where the kernels were not asked for."""
    return _LAYERS.get(session, ())


def summary(found: Sequence[Layer]) -> dict[str, Any]:
    """The `kernels` entry of a document: how many layers are claimed, and each layer."""
    return {"claimed": sum(layer.claimed for layer in found), "layers": [layer.to_json() for layer in found]}


def number() -> int:
    """A number that no other session of this process reports under."""
    return next(_NUMBERS)


def keep(session: ort.InferenceSession, report: int) -> None:
    """Fetch what was reported under a number and remember it for `layers`."""
    _LAYERS[session] = read(report)


def read(report: int) -> tuple[Layer, ...]:
    """Fetch and forget what the provider reported under a number."""
    function = library().SparseKernelsReport
    function.restype = ctypes.c_size_t
    function.argtypes = (ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t)
    size = function(report, None, 0)
    buffer = ctypes.create_string_buffer(size + 1)
    function(report, buffer, size)
    return _what_runs(buffer.raw[:size].decode(errors="replace").split("\n")[:-1])


def _what_runs(lines: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that were compiled in any round, and those that onnxruntime was left with in the last.

    The model is gone through once more whenever functions were dissolved: what is compiled by then is no longer seen,
    and what was only asked about comes again.
    """
    compiled: list[Layer] = []
    seen: list[Layer] = []
    ended = False  # a line is empty where a round ends, and a star where its claimed layers are compiled
    for line in lines:
        if line == "*":
            compiled = [layer for layer in seen if layer.claimed]
        elif not line:
            ended = True
        else:
            if ended:
                seen, ended = list(compiled), False
            seen.append(_layer(line))
    return tuple(seen)


def _layer(line: str) -> Layer:
    operator, nonzeros, weights, reason, name = line.split("\t")
    counts = [None if int(text) < 0 else int(text) for text in (nonzeros, weights)]
    return Layer(one_line(name), one_line(operator), counts[0], counts[1], reason or None)
