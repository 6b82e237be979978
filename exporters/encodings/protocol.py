"""What an encoding is: a way to write one weight tensor into an ONNX graph, and to read it back.

An encoding is a module-level object with two functions. ``encode`` turns an array into initializers and plain
nodes whose last output carries the tensor's name; ``decode`` recognises those nodes in a graph and restores
the tensor with numpy alone. A new encoding is one file with such an object and one line in ``registry.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, SparseTensorProto, TensorProto

from exporters.tensors import Message, field_bytes

Weights = NDArray[np.floating]
Shared = TensorProto | NodeProto
"""A part that several tensors may use: a small constant, a table, a block of zeros."""

# The operators that decoding uses and the number of inputs it gives them.
_INPUTS = {
    "Add": 2,
    "Cast": 1,
    "ConstantOfShape": 1,
    "CumSum": 2,
    "Gather": 2,
    "Less": 2,
    "Mul": 2,
    "Reshape": 2,
    "ScatterElements": 3,
    "Transpose": 1,
    "Where": 3,
}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The parts of a graph that stand for one tensor.

    ``shared`` holds parts that other tensors may use too (small constants, blocks of zeros), by name; equal
    names mean equal content. ``restored`` is the tensor that they give, where that is not simply the one asked for
    with every element rounded to the type of stored values.
    """

    encoding: str
    name: str
    nodes: tuple[NodeProto, ...] = ()
    initializers: tuple[TensorProto, ...] = ()
    sparse_initializers: tuple[SparseTensorProto, ...] = ()
    shared: Mapping[str, Shared]
    restored: NDArray[np.float32] | None = None

    @property
    def own_bytes(self) -> int:
        """Bytes of the parts that belong to this tensor alone."""
        parts: list[Message] = [*self.nodes, *self.initializers, *self.sparse_initializers]
        return sum(field_bytes(part) for part in parts)

    def size_bytes(self, present: Mapping[str, Shared]) -> int:
        """Return the bytes that this tensor adds to a graph in which the shared parts ``present`` exist."""
        added = (part for name, part in self.shared.items() if name not in present)
        return self.own_bytes + sum(field_bytes(part) for part in added)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One tensor read back from a graph, kept as sparse as the file keeps it.

    Attributes:
        encoding: The name of the encoding.
        shape: The shape of the tensor.
        values: The stored values; all of them in row-major order when ``positions`` is None.
        positions: Row-major position of each value (each at most once, in any order), or None.
        parts: Names of the initializers and node outputs that stand for this tensor and no other.
        size_bytes: Bytes of these parts.
        shared: Names of parts that other tensors may use too, but that are no tensors of the network.
        background: Makes what the positions without a value hold, flat and without a zero; None: they hold zeros.
    """

    encoding: str
    shape: tuple[int, ...]
    values: Weights
    positions: NDArray[np.int64] | None
    parts: frozenset[str]
    size_bytes: int
    shared: frozenset[str] = frozenset()
    background: Callable[[], Weights] | None = None

    @property
    def parameters(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nonzeros(self) -> int:
        """The number of elements that are not zero."""
        nonzeros = int(np.count_nonzero(self.values))
        return nonzeros if self.background is None else self.parameters - self.values.size + nonzeros

    def dense(self) -> Weights:
        """Return the whole tensor. The caller trusts the file: a tiny one may announce a huge shape."""
        if self.positions is None:
            return self.values.reshape(self.shape)
        flat = np.zeros(self.parameters, self.values.dtype) if self.background is None else self.background()
        flat[self.positions] = self.values
        return flat.reshape(self.shape)


class GraphView:
    """Names of a graph resolved: which initializer holds a value, which node produces it."""

    def __init__(self, graph: GraphProto) -> None:
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1
        for value in graph.output:
            self._readers[value.name] = self._readers.get(value.name, 0) + 1
        self._ends = {value.name for value in (*graph.input, *graph.output)}

    def node(self, name: str, op_type: str) -> NodeProto | None:
        """Return the node that produces ``name`` when it is a well-formed ``op_type``, or None.

        Well-formed: of the standard domain, with one output and as many inputs as decoding nodes have.
        """
        node = self.producers.get(name)
        if node is None or node.op_type != op_type or node.domain not in ("", "ai.onnx"):
            return None
        return node if len(node.output) == 1 and len(node.input) == _INPUTS[op_type] else None

    @property
    def names(self) -> set[str]:
        """Every name of a constant, a node's output, anything that a node reads, or an input or output of the graph."""
        return {*self.initializers, *self.sparse, *self.producers, *self._readers, *self._ends}

    def readers(self, name: str) -> int:
        """Return how often nodes and graph outputs read ``name``."""
        return self._readers.get(name, 0)


class Encoding(Protocol):
    """One way to store a tensor."""

    @property
    def name(self) -> str:
        """The name users and files know it by."""
        ...

    @property
    def portable(self) -> bool:
        """Whether every ONNX runtime and tool reads it; ``auto`` takes portable encodings only."""
        ...

    def encode(self, name: str, weights: NDArray[np.float32], *, values: str, prefix: str) -> Encoded | None:
        """Return the parts that restore ``weights`` bit for bit under ``name``, or None when it cannot.

        Args:
            name: The name that the consumers of the tensor use.
            weights: The tensor, of any shape.
            values: ``"float32"`` or ``"float16"``; for the latter every weight is a float16 number already.
            prefix: A string that no other name in the graph begins with, for the names of inner parts.
        """
        ...

    def decode(self, graph: GraphView, name: str) -> Decoded | None:
        """Return the tensor ``name`` of ``graph``, or None when it is not stored in this encoding.

        Raises:
            ValueError: it is stored in this encoding, but damaged.
        """
        ...
