"""Coordinates: the sparse_initializer of ONNX, positions of the non-zeros beside their values.

onnxruntime turns it dense when it loads the model. Other readers do not know it (OpenVINO 2026.4 and onnx's
reference evaluator fail, onnx's full check infers a wrong shape), so ``auto`` leaves it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, SparseTensorProto, TensorProto, helper

from exporters.encodings.parts import bytes_of
from exporters.encodings.protocol import Decoded, Encoded, GraphView
from exporters.tensors import array_tensor, element_count, integers_tensor, is_supported_float, read_array, read_floats


@dataclass(frozen=True, kw_only=True)
class Coo:
    """A sparse_initializer with flat, ascending INT64 positions."""

    name: str = "coo"
    portable: bool = False

    def encode(self, name: str, weights: NDArray[np.float32], *, values: str, prefix: str) -> Encoded | None:
        """Return the non-zeros and their positions; None for scalars and tensors without elements."""
        if weights.ndim == 0 or weights.size == 0:
            return None
        flat = np.ascontiguousarray(weights).reshape(-1)
        positions = np.flatnonzero(flat.view(np.uint32)).astype(np.int64)
        stored = f"{prefix}v" if values == "float16" else name
        kept = flat[positions].astype(np.float16 if values == "float16" else np.float32)
        sparse = SparseTensorProto(dims=weights.shape)
        sparse.values.CopyFrom(array_tensor(stored, kept))
        candidates = (array_tensor("", positions), integers_tensor("", positions.tolist()))
        sparse.indices.CopyFrom(min(candidates, key=lambda tensor: int(tensor.ByteSize())))
        nodes: tuple[NodeProto, ...] = ()
        if values == "float16":
            nodes = (helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT),)
        return Encoded(encoding=self.name, name=name, nodes=nodes, sparse_initializers=(sparse,), shared={})

    def decode(self, graph: GraphView, name: str) -> Decoded | None:
        """Return the sparse initializer ``name``, with flat or per-axis positions."""
        parts = {name}
        sparse = graph.sparse.get(name)
        cast = graph.node(name, "Cast")
        if sparse is None and cast is not None:
            sparse = graph.sparse.get(cast.input[0])
            parts.add(cast.input[0])
        if sparse is None or not is_supported_float(sparse.values):
            return None
        shape = tuple(int(size) for size in sparse.dims)
        return Decoded(
            encoding=self.name,
            shape=shape,
            values=read_floats(sparse.values),
            positions=_positions(sparse, shape, name),
            parts=frozenset(parts),
            size_bytes=bytes_of(graph, parts),
        )


def _positions(sparse: SparseTensorProto, shape: tuple[int, ...], name: str) -> NDArray[np.int64]:
    elements = element_count(TensorProto(name=name, dims=shape))
    if elements > np.iinfo(np.int64).max:
        raise ValueError(f"sparse tensor {name!r} announces {elements} elements")
    indices = np.asarray(read_array(sparse.indices), dtype=np.int64)
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        if (indices < 0).any() or (indices >= np.asarray(shape, dtype=np.int64)).any():
            raise ValueError(f"sparse tensor {name!r} has a position outside its shape {list(shape)}")
        strides = np.cumprod([1, *shape[:0:-1]], dtype=np.int64)[::-1]
        indices = indices @ strides
    if indices.ndim != 1 or indices.size != element_count(sparse.values) or len(sparse.values.dims) != 1:
        raise ValueError(f"sparse tensor {name!r} does not have one position for each value")
    if indices.size and (indices[0] < 0 or indices[-1] >= elements or (np.diff(indices) <= 0).any()):
        raise ValueError(f"sparse tensor {name!r}: its positions are not ascending within its shape")
    return indices


COO = Coo()
