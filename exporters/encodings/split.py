"""Exact float32 values in 28 bits: sign and mantissa as integers, the exponent as a 4-bit number.

Trained weights use all their mantissa bits but few exponents. A value ±M·2^k, M the 24-bit integer mantissa
(2^23 ≤ M < 2^24), is stored as

    high  UINT8    sign in the top bit, below it the 7 bits of M under its leading one
    low   UINT16   the last 16 bits of M, inverted for negative values
    code  UINT4    which of 16 neighbouring powers of two

and comes back as (mantissa[high] + low) · scale[code]. Both tables hold exact float32 numbers, the sum is an
integer below 2^24 and the factor is a power of two, so no step rounds. Inverting ``low`` lets a negative value
be a sum as well: −M = (1 − (h+1)·2^16) + (2^16 − 1 − l) for M = h·2^16 + l. The few values outside the
exponent window (and zeros) follow as they are and overwrite their places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporters.encodings.parts import plain_node
from exporters.encodings.protocol import GraphView, Shared
from exporters.encodings.values import Loaded, Stored
from exporters.tensors import array_tensor, element_count, nibble_tensor, read_array

_WINDOW = 16
_LEAD = np.arange(128, 256, dtype=np.float64) * 65536
_MANTISSA = np.concatenate([_LEAD, 1 - (_LEAD + 65536)]).astype(np.float32)
_MANTISSA_NAME = "/split/m"
# A float32 is M * 2**(exponent - 150); from 24 on this factor is a normal number, which no runtime flushes.
_BIAS = 150
_SMALLEST_EXPONENT = 24
_LARGEST_EXPONENT = 254


def store_split(name: str, array: NDArray[np.float32]) -> Stored:
    """Return the parts that restore the 1-D ``array`` under ``name`` bit for bit.

    Args:
        name: The name of the restored array; inner names begin with it.
        array: Any float32 values; those with unusual exponents cost 8 bytes each.
    """
    bits = array.view(np.uint32)
    exponents = ((bits >> 23) & 255).astype(np.int64)
    lowest = _window_start(exponents)
    codes = exponents - lowest
    outside = np.flatnonzero((codes < 0) | (codes >= _WINDOW))
    negative = (bits >> 31).astype(bool)
    high = ((bits >> 16) & 127) | (negative.astype(np.uint32) << 7)
    low = np.where(negative, ~bits, bits) & 0xFFFF
    codes[outside] = 0

    scale_name = f"/split/s{lowest}"
    scale = np.exp2(np.arange(_WINDOW, dtype=np.float64) + lowest - _BIAS).astype(np.float32)
    product = f"{name}.p" if outside.size else name
    initializers = [
        array_tensor(f"{name}.h", high.astype(np.uint8)),
        array_tensor(f"{name}.l", low.astype(np.uint16)),
        nibble_tensor(f"{name}.e", codes.astype(np.uint8)),
    ]
    nodes = [
        helper.make_node("Cast", [f"{name}.h"], [f"{name}.hi"], to=TensorProto.INT32),
        helper.make_node("Gather", [_MANTISSA_NAME, f"{name}.hi"], [f"{name}.hf"]),
        helper.make_node("Cast", [f"{name}.l"], [f"{name}.lf"], to=TensorProto.FLOAT),
        helper.make_node("Add", [f"{name}.hf", f"{name}.lf"], [f"{name}.m"]),
        helper.make_node("Cast", [f"{name}.e"], [f"{name}.ei"], to=TensorProto.INT32),
        helper.make_node("Gather", [scale_name, f"{name}.ei"], [f"{name}.s"]),
        helper.make_node("Mul", [f"{name}.m", f"{name}.s"], [product]),
    ]
    if outside.size:
        initializers += [
            array_tensor(f"{name}.x", outside.astype(np.int32)),
            array_tensor(f"{name}.y", array[outside]),
        ]
        nodes.append(helper.make_node("ScatterElements", [product, f"{name}.x", f"{name}.y"], [name]))
    shared: dict[str, Shared] = {
        _MANTISSA_NAME: array_tensor(_MANTISSA_NAME, _MANTISSA),
        scale_name: array_tensor(scale_name, scale),
    }
    return Stored(initializers=tuple(initializers), nodes=tuple(nodes), shared=shared)


def _window_start(exponents: NDArray[np.int64]) -> int:
    """Return the lowest of the 16 neighbouring exponents that leave the fewest values outside."""
    counts = np.bincount(exponents, minlength=256)
    counts[:_SMALLEST_EXPONENT] = 0
    counts[_LARGEST_EXPONENT + 1 :] = 0
    inside = np.convolve(counts, np.ones(_WINDOW, dtype=counts.dtype), mode="valid")
    inside = inside[_SMALLEST_EXPONENT : _LARGEST_EXPONENT - _WINDOW + 2]
    return int(np.argmax(inside)) + _SMALLEST_EXPONENT


def load_split(graph: GraphView, name: str) -> Loaded | None:
    """Return the values that ``store_split`` put under ``name``, or None.

    Raises:
        ValueError: the parts do not fit together.
    """
    parts = {name}
    scatter = plain_node(graph, name, "ScatterElements")
    product_name = scatter.input[0] if scatter is not None else name
    names = _inner_names(graph, product_name)
    if names is None:
        return None
    parts.update([product_name, *names["parts"]])
    high = _integers(graph, names["high"][0], TensorProto.UINT8)
    low = _integers(graph, names["low"][0], TensorProto.UINT16)
    codes = _integers(graph, names["code"][0], TensorProto.UINT4)
    mantissa = _table(graph, names["mantissa"][0], 256)
    scale = _table(graph, names["scale"][0], _WINDOW)
    if not high.size == low.size == codes.size:
        raise ValueError(f"split values {name!r}: the parts differ in length")
    with np.errstate(all="ignore"):
        array = (mantissa[high] + low.astype(np.float32)) * scale[codes]
    if scatter is not None:
        _, index_name, value_name = scatter.input
        parts.update([index_name, value_name])
        index = _integers(graph, index_name, TensorProto.INT32)
        values = _table(graph, value_name, index.size)
        if index.size and (index.min() < 0 or index.max() >= array.size):
            raise ValueError(f"split values {name!r}: a position lies outside")
        array[index] = values
    tables = frozenset([*names["mantissa"], *names["scale"]])
    return Loaded(array=array, parts=frozenset(parts), shared=tables)


def _inner_names(graph: GraphView, product_name: str) -> dict[str, list[str]] | None:
    """Walk from the Mul back to the stored parts; None when the nodes are others."""
    product = graph.node(product_name, "Mul")
    total = graph.node(product.input[0], "Add") if product is not None else None
    factor = plain_node(graph, product.input[1], "Gather") if product is not None else None
    if product is None or total is None or factor is None:
        return None
    lead = plain_node(graph, total.input[0], "Gather")
    low = graph.node(total.input[1], "Cast")
    code = graph.node(factor.input[1], "Cast")
    high = graph.node(lead.input[1], "Cast") if lead is not None else None
    if lead is None or low is None or code is None or high is None:
        return None
    inner = [*product.input, *total.input, lead.input[1], factor.input[1]]
    stored = [high.input[0], low.input[0], code.input[0]]
    return {
        "parts": inner + stored,
        "high": stored[:1],
        "low": stored[1:2],
        "code": stored[2:],
        "mantissa": [lead.input[0]],
        "scale": [factor.input[0]],
    }


def _integers(graph: GraphView, name: str, data_type: int) -> NDArray[np.int64]:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type != data_type or len(tensor.dims) != 1:
        raise ValueError(f"split values: {name!r} is not a list of {TensorProto.DataType.Name(data_type)}")
    return read_array(tensor).astype(np.int64)


def _table(graph: GraphView, name: str, size: int) -> NDArray[np.float32]:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT or element_count(tensor) != size:
        raise ValueError(f"split values: {name!r} is not a list of {size} float32 numbers")
    return read_array(tensor).astype(np.float32).reshape(-1)
