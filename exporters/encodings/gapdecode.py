"""The numpy decoder of gap nodes: recognises them in any graph and returns values with their positions.

It never allocates more than the file holds: the tensor stays sparse, whatever shape it announces.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from exporters.encodings.gapcodes import CODE_TYPES
from exporters.encodings.parts import bytes_of, constant_integers, integer_attribute, plain_node
from exporters.encodings.protocol import Decoded, GraphView
from exporters.encodings.split import load_split
from exporters.encodings.values import Loaded, load
from exporters.tensors import read_array

_LARGEST = 2**31 - 1


def decode_gap(graph: GraphView, name: str, *, encoding: str, split: bool) -> Decoded | None:
    """Return the gap-coded tensor ``name``, or None when other nodes produce it.

    Args:
        graph: The graph that holds it.
        name: The name its consumers use.
        encoding: The name of the encoding to report.
        split: Whether its values have to be split values (see ``split.py``) or plain ones.

    Raises:
        ValueError: the nodes are ours, but sizes or codes contradict each other.
    """
    if not split and (zeros := _decode_zeros(graph, name, encoding)) is not None:
        return zeros
    parts = {name}
    transpose = graph.node(name, "Transpose")
    reshaped = transpose.input[0] if transpose is not None else name
    reshape = graph.node(reshaped, "Reshape")
    scatter = plain_node(graph, reshape.input[0], "ScatterElements") if reshape is not None else None
    if reshape is None or scatter is None:
        return None
    shape = constant_integers(graph, reshape.input[1])
    size = _zeros_size(graph, scatter.input[0])
    if shape is None or size is None:
        return None
    parts.update([reshaped, reshape.input[0], *scatter.input[1:]])
    found = placed_values(graph, scatter.input[1], scatter.input[2], parts, split=split)
    if found is None:
        return None
    positions, stored = found
    if min(shape, default=1) < 0 or math.prod(shape) != size or not 0 < size <= _LARGEST:
        raise ValueError(f"gap-coded tensor {name!r}: shape {list(shape)} does not fit its size {size}")
    if positions.size and int(positions[-1]) >= size:
        raise ValueError(f"gap-coded tensor {name!r}: a position lies outside its shape {list(shape)}")
    if transpose is not None:
        shape, positions = _transposed(transpose, shape, positions, name)
    return Decoded(
        encoding=encoding,
        shape=shape,
        values=stored.array.reshape(-1),
        positions=positions,
        parts=frozenset(parts),
        size_bytes=bytes_of(graph, parts),
        shared=stored.shared,
    )


def _decode_zeros(graph: GraphView, name: str, encoding: str) -> Decoded | None:
    node = plain_node(graph, name, "ConstantOfShape")
    if node is None or (shape := constant_integers(graph, node.input[0])) is None:
        return None
    if min(shape, default=0) < 0:
        raise ValueError(f"tensor {name!r} has a negative dimension: {list(shape)}")
    nothing = np.zeros(0)
    return Decoded(
        encoding=encoding,
        shape=shape,
        values=nothing.astype(np.float32),
        positions=nothing.astype(np.int64),
        parts=frozenset({name}),
        size_bytes=bytes_of(graph, {name}),
    )


def _zeros_size(graph: GraphView, name: str) -> int | None:
    node = plain_node(graph, name, "ConstantOfShape")
    size = constant_integers(graph, node.input[0]) if node is not None else None
    return size[0] if size is not None and len(size) == 1 else None


def placed_values(
    graph: GraphView, at: str, placed: str, parts: set[str], *, split: bool
) -> tuple[NDArray[np.int64], Loaded] | None:
    """Return positions and values of the scatter, following its two inputs back to the stored codes."""
    total = graph.node(at, "CumSum")
    if total is None or integer_attribute(total, "exclusive") != 1 or integer_attribute(total, "reverse"):
        return None
    adding = graph.node(total.input[0], "ScatterElements")
    cast = graph.node(total.input[0] if adding is None else adding.input[0], "Cast")
    codes = _codes(graph, cast.input[0]) if cast is not None else None
    found = load_split(graph, placed) if split else load(graph, placed)
    if cast is None or codes is None or found is None:
        return None
    parts.update([total.input[0], cast.output[0], cast.input[0], *found.parts])
    if adding is not None and not _add_extra(graph, adding, codes, parts):
        return None
    if codes.size != found.array.size:
        raise ValueError(f"gap-coded tensor: {codes.size} codes for {found.array.size} values in {cast.input[0]!r}")
    if (codes[:-1] <= 0).any():
        raise ValueError(f"gap-coded tensor: two values at one place in {cast.input[0]!r}")
    return np.cumsum(codes) - codes, found


def _add_extra(graph: GraphView, adding: NodeProto, steps: NDArray[np.int64], parts: set[str]) -> bool:
    """Add the units of long distances to ``steps``; False when the nodes are not ours."""
    if [(item.name, item.s) for item in adding.attribute] != [("reduction", b"add")]:
        return False
    target, choice = graph.node(adding.input[1], "CumSum"), graph.node(adding.input[2], "Where")
    less = graph.node(choice.input[0], "Less") if choice is not None else None
    cast = graph.node(target.input[0], "Cast") if target is not None else None
    codes = _codes(graph, cast.input[0]) if cast is not None else None
    if target is None or choice is None or less is None or cast is None or codes is None:
        return False
    numbers = [constant_integers(graph, name) for name in (less.input[1], choice.input[1], choice.input[2])]
    skip, unit, nothing = (number[0] if number and len(number) == 1 else -1 for number in numbers)
    if less.input[0] != cast.output[0] or nothing != 0 or not 0 < unit <= _LARGEST or skip < 0:
        return False
    if integer_attribute(target, "exclusive") or integer_attribute(target, "reverse"):
        return False
    parts.update([*adding.input, choice.input[0], cast.output[0], cast.input[0]])
    places = np.cumsum(codes)
    if places.size and int(places[-1]) >= steps.size:
        raise ValueError(f"gap-coded tensor: a code in {cast.input[0]!r} lies outside")
    np.add.at(steps, places[codes < skip], unit)
    return True


def _codes(graph: GraphView, name: str) -> NDArray[np.int64] | None:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type not in CODE_TYPES or len(tensor.dims) != 1:
        return None
    return read_array(tensor).astype(np.int64)


def _transposed(
    node: NodeProto, shape: tuple[int, ...], positions: NDArray[np.int64], name: str
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return shape and positions after a Transpose."""
    order = [int(axis) for item in node.attribute if item.name == "perm" for axis in item.ints]
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"gap-coded tensor {name!r}: Transpose has a wrong order of axes {order}")
    indices = np.unravel_index(positions, shape)
    moved = tuple(shape[axis] for axis in order)
    return moved, np.ravel_multi_index(tuple(indices[axis] for axis in order), moved).astype(np.int64)
