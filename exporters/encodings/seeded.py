"""Frozen weights regenerated from a seed; of a tensor only the trained values and their positions are stored.

    W = Mul(Reshape(ScatterElements(Gather(Mul(table, scale), indices), positions, values), shape), factor)

Table and indices come from one generator for all tensors (`generator.py`); positions are gap codes (`gap.py`) and
absent where nothing was trained. ``factor`` is there where BatchNorm was folded into the layer: the product is the
very float32 product that folding makes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporters.encodings.gap import scatter, shared_shape
from exporters.encodings.gapcodes import best_codes
from exporters.encodings.gapdecode import placed_values
from exporters.encodings.generator import Generator
from exporters.encodings.parts import bytes_of, constant_integers, plain_node
from exporters.encodings.protocol import Decoded, Encoded, GraphView, Shared
from exporters.encodings.recovery import Recovered, recover
from exporters.encodings.values import Stored, rounded
from exporters.tensors import array_tensor, read_array


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What is known of one tensor before it is encoded.

    Attributes:
        weights: float32, before a BatchNorm was folded into it.
        background: float32, what the generator makes, of the same shape.
        factor: What the BatchNorm multiplies it by, of a shape that broadcasts; None without one.
        scale: The scale of its distribution.
        indices: The generator's name of its indices.
    """

    weights: NDArray[np.float32]
    background: NDArray[np.float32]
    factor: NDArray[np.float32] | None
    scale: float
    indices: str


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Encodes the tensors that it was prepared for (see `seeds.py`), decodes any."""

    name: str = "seeded"
    portable: bool = True
    generator: Generator | None = None
    frozen: Mapping[str, Frozen] = field(default_factory=dict)

    def encode(self, name: str, weights: NDArray[np.float32], *, values: str, prefix: str) -> Encoded | None:
        """Return the trained values, their positions and the nodes; None for tensors without a seed."""
        item = self.frozen.get(name)
        if item is None or self.generator is None:
            return None
        shared: dict[str, Shared] = dict(self.generator.parts)
        nodes = [
            helper.make_node("Mul", [self.generator.table, f"{prefix}k"], [f"{prefix}b"]),
            helper.make_node("Gather", [f"{prefix}b", item.indices], [f"{prefix}g"]),
        ]
        initializers = [array_tensor(f"{prefix}k", np.asarray(item.scale, np.float32))]
        restored = item.background.copy()
        flat = f"{prefix}g"
        trained = item.weights.view(np.uint32) != item.background.view(np.uint32)
        if trained.any():
            stored, positions, kept = _trained(item.weights, trained, values, flat, prefix)
            nodes += stored.nodes
            initializers += stored.initializers
            shared.update(stored.shared)
            restored.reshape(-1)[positions] = kept
            flat = f"{prefix}f"
        reshaped = name if item.factor is None else f"{prefix}r"
        nodes.append(helper.make_node("Reshape", [flat, shared_shape(list(weights.shape), shared)], [reshaped]))
        if item.factor is not None:
            nodes.append(helper.make_node("Mul", [reshaped, f"{prefix}m"], [name]))
            initializers.append(array_tensor(f"{prefix}m", item.factor))
            restored = restored * item.factor
        return Encoded(
            encoding=self.name,
            name=name,
            nodes=tuple(nodes),
            initializers=tuple(initializers),
            shared=shared,
            restored=restored,
        )

    def decode(self, graph: GraphView, name: str) -> Decoded | None:
        """Return the tensor ``name`` as its trained values and, when it is asked for, what is regenerated."""
        parts = {name}
        product = graph.node(name, "Mul")
        reshape = graph.node(product.input[0] if product is not None else name, "Reshape")
        if reshape is None:
            return None
        written = plain_node(graph, reshape.input[0], "ScatterElements")
        gather = plain_node(graph, written.input[0] if written is not None else reshape.input[0], "Gather")
        scaled = graph.node(gather.input[0], "Mul") if gather is not None else None
        shape = constant_integers(graph, reshape.input[1])
        if gather is None or scaled is None or shape is None:
            return None
        recovered = recover(graph, table=scaled.input[0], chosen=gather.input[1])
        if recovered is None:
            return None
        parts.update([*reshape.output, reshape.input[0], gather.output[0], gather.input[0], scaled.input[1]])
        scale = _scale(graph, scaled.input[1])
        size = recovered.source.size
        if min(shape, default=0) <= 0 or math.prod(shape) != size:
            raise ValueError(f"seeded tensor {name!r}: shape {list(shape)} does not fit its size {size}")
        factor = None
        if product is not None:
            parts.add(product.input[1])
            factor = _factor(graph, product.input[1], shape)
        values, positions = np.zeros(0, np.float32), np.zeros(0, np.int64)
        if written is not None:
            placed = placed_values(graph, written.input[1], written.input[2], parts, split=False)
            if placed is None:
                return None
            parts.update(written.input[1:])
            positions, values = placed[0], placed[1].array.astype(np.float32).reshape(-1)
            if not positions.size:
                raise ValueError(f"seeded tensor {name!r}: its trained values have no positions")
            if int(positions[-1]) >= size:
                raise ValueError(f"seeded tensor {name!r}: a position lies outside its shape {list(shape)}")
        if factor is not None:
            values = values * _at(factor, positions, shape)
        return Decoded(
            encoding=self.name,
            shape=shape,
            values=values,
            positions=positions,
            parts=frozenset(parts),
            size_bytes=bytes_of(graph, parts),
            shared=recovered.names,
            background=lambda: _background(recovered, scale, shape, factor),
        )


def _trained(
    weights: NDArray[np.float32], trained: NDArray[np.bool_], values: str, background: str, prefix: str
) -> tuple[Stored, NDArray[np.int64], NDArray[np.float32]]:
    """Return the parts that write the trained values over the background, their positions, and the values as stored."""
    codes = best_codes(weights, trained, reorder=False)
    try:
        kept = rounded(codes.values, values)
    except OverflowError:
        kept, values = codes.values, "float32"
    return scatter(prefix, background, replace(codes, values=kept), values), codes.positions, kept


def _scale(graph: GraphView, name: str) -> np.float32:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT or tensor.dims:
        raise ValueError(f"seeded tensor: {name!r} is not a float32 number")
    scale = np.float32(read_array(tensor))
    if not 0 < scale < np.inf:
        raise ValueError(f"seeded tensor: the scale {scale} is not a positive number")
    return scale


def _factor(graph: GraphView, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a stored factor, one number a channel along one axis."""
    tensor = graph.initializers.get(name)
    factor = read_array(tensor) if tensor is not None and tensor.data_type == TensorProto.FLOAT else np.zeros(0)
    axes = [axis for axis, size in enumerate(factor.shape) if size != 1]
    fits = factor.ndim == len(shape) and all(factor.shape[axis] == shape[axis] for axis in axes)
    if not fits or len(axes) > 1 or not np.isfinite(factor).all() or not factor.all():
        raise ValueError(f"seeded tensor: {name!r} does not hold one number other than 0 for every channel")
    return factor.astype(np.float32)


def _at(factor: NDArray[np.float32], positions: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the factor of each flat position, without an array of the whole shape."""
    axis = int(np.argmax(factor.shape))
    channel = positions // math.prod(shape[axis + 1 :]) % factor.shape[axis]
    numbers: NDArray[np.float32] = factor.reshape(-1)[channel]
    return numbers


def _background(
    recovered: Recovered, scale: np.float32, shape: tuple[int, ...], factor: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    whole = recovered.values(scale).reshape(shape)
    return (whole if factor is None else whole * factor).reshape(-1)


SEEDED = Seeded()
