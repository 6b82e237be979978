"""How the values of a tensor are stored inside an encoding: as they are, or as float16 and a Cast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from exporters.encodings.protocol import GraphView, Shared, Weights
from exporters.tensors import array_tensor, is_supported_float, read_floats

VALUE_TYPES = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The parts of a graph that give a 1-D float32 array its name."""

    initializers: tuple[TensorProto, ...]
    nodes: tuple[NodeProto, ...] = ()
    shared: Mapping[str, Shared] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Values read back, the names of the parts they came from, and of the parts that others share."""

    array: Weights
    parts: frozenset[str]
    shared: frozenset[str] = frozenset()


def rounded(weights: NDArray[np.float32], values: str) -> NDArray[np.float32]:
    """Return ``weights`` as ``values`` can represent them.

    Raises:
        OverflowError: a weight is beyond the range of float16.
    """
    if values == "float32":
        return weights
    with np.errstate(over="ignore"):
        halves = weights.astype(np.float16)
    if not np.array_equal(np.isfinite(weights), np.isfinite(halves)):
        raise OverflowError("a weight is beyond the range of float16")
    # Adding +0.0 turns the -0.0 of an underflowed negative weight into a plain zero.
    return halves.astype(np.float32) + np.float32(0.0)


def store(name: str, array: NDArray[np.float32], values: str) -> Stored:
    """Return the initializer, and for float16 the Cast, that give ``array`` the name ``name``."""
    if values == "float32":
        return Stored(initializers=(array_tensor(name, array),))
    stored = f"{name}.h"
    node = helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT)
    return Stored(initializers=(array_tensor(stored, array.astype(np.float16)),), nodes=(node,))


def load(graph: GraphView, name: str) -> Loaded | None:
    """Return the values that ``store`` put under ``name``, or None."""
    parts = {name}
    cast = graph.node(name, "Cast")
    if cast is not None:
        if [item.i for item in cast.attribute if item.name == "to"] != [TensorProto.FLOAT]:
            return None
        parts.add(cast.input[0])
        tensor = graph.initializers.get(cast.input[0])
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            return None
    else:
        tensor = graph.initializers.get(name)
    if tensor is None or not is_supported_float(tensor):
        return None
    return Loaded(array=read_floats(tensor), parts=frozenset(parts))
