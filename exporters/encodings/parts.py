"""Helpers that encodings share: bytes of named parts, constants, attributes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto, TensorProto

from exporters.encodings.protocol import GraphView
from exporters.tensors import element_count, field_bytes, read_array

_LARGEST_SHAPE = 64


def bytes_of(graph: GraphView, names: Iterable[str]) -> int:
    """Return the bytes that the initializers and nodes called ``names`` take in the graph."""
    total = 0
    for name in names:
        for part in (graph.initializers.get(name), graph.sparse.get(name), graph.producers.get(name)):
            if part is not None:
                total += field_bytes(part)
    return total


def plain_node(graph: GraphView, name: str, op_type: str) -> NodeProto | None:
    """Return the node that produces ``name`` as `GraphView.node` does, or None also when it has attributes.

    For operators that compute something else with attributes, where the encodings write none.
    """
    node = graph.node(name, op_type)
    return None if node is None or node.attribute else node


def constant_integers(graph: GraphView, name: str) -> tuple[int, ...] | None:
    """Return the content of a small integer initializer (a shape, an axis, a scalar), or None."""
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type not in (TensorProto.INT32, TensorProto.INT64):
        return None
    if len(tensor.dims) > 1 or element_count(tensor) > _LARGEST_SHAPE:
        return None
    return tuple(int(value) for value in np.atleast_1d(read_array(tensor)))


def integer_attribute(node: NodeProto, name: str, default: int = 0) -> int:
    """Return an integer attribute of ``node``."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)
