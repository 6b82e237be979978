"""Gaps between non-zeros in 4, 8 or 16 bits, rebuilt by standard operators that runtimes fold at load time.

A cursor walks the flattened tensor. It starts at the first element, which therefore always has a value, be it 0;
after each value it advances by the distance to the next one, low + 2^w·high (see `gapcodes.py`):

    steps = Cast(low -> INT32)
    c     = Cast(extra -> INT32)
    steps = ScatterElements(steps, CumSum(c), Where(Less(c, 2^v - 1), 2^w, 0), reduction = add)
    at    = CumSum(steps, exclusive)
    W     = Transpose(Reshape(ScatterElements(ConstantOfShape(size), at, values), shape))

Without distances of 2^w and more the middle lines are absent; Transpose only appears when another order of axes
has smaller gaps. Most intermediate results have one INT32 an extra or a value: what a runtime allocates and
copies while it folds is what the creation of a session costs. Compress and NonZero would allow for other forms, but
onnxruntime does not fold operators whose output size depends on data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from exporters.encodings.gapcodes import Codes, best_codes, skip_code
from exporters.encodings.gapdecode import decode_gap
from exporters.encodings.protocol import Decoded, Encoded, GraphView, Shared
from exporters.encodings.split import store_split
from exporters.encodings.values import Stored, store
from exporters.tensors import array_tensor, integers_tensor, nibble_tensor

_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Gap codes for the positions; the values as they are, or split into mantissa and exponent."""

    name: str = "gap"
    portable: bool = True
    split: bool = False

    def encode(self, name: str, weights: NDArray[np.float32], *, values: str, prefix: str) -> Encoded | None:
        """Return codes, values and decoding nodes.

        None for scalars, tensors without elements, more than 2^31 - 1 elements, and for ``split`` also for
        float16 values and for tensors of which less than half is zero: there the work of decoding would
        exceed that of reading the file.
        """
        if weights.ndim == 0 or not 0 < weights.size <= _LARGEST:
            return None
        nonzeros = int(np.count_nonzero(weights.view(np.uint32)))
        if self.split and (values != "float32" or 2 * nonzeros > weights.size):
            return None
        if nonzeros == 0:
            return self._encode_zeros(name, weights.shape)
        codes = best_codes(weights)
        shared: dict[str, Shared] = {}
        zeros = _zeros(weights.size, shared)
        scattered = scatter(prefix, zeros, codes, values, split=self.split)
        shared.update(scattered.shared)
        nodes = [*scattered.nodes]
        moved = codes.order != tuple(range(weights.ndim))
        reshaped = f"{prefix}r" if moved else name
        shape = shared_shape([weights.shape[axis] for axis in codes.order], shared)
        nodes.append(helper.make_node("Reshape", [f"{prefix}f", shape], [reshaped]))
        if moved:
            back = [codes.order.index(axis) for axis in range(weights.ndim)]
            nodes.append(helper.make_node("Transpose", [reshaped], [name], perm=back))
        return Encoded(
            encoding=self.name,
            name=name,
            nodes=tuple(nodes),
            initializers=scattered.initializers,
            shared=shared,
        )

    def _encode_zeros(self, name: str, shape: tuple[int, ...]) -> Encoded:
        shared: dict[str, Shared] = {}
        node = helper.make_node("ConstantOfShape", [shared_shape(list(shape), shared)], [name])
        return Encoded(encoding=self.name, name=name, nodes=(node,), shared=shared)

    def decode(self, graph: GraphView, name: str) -> Decoded | None:
        """Return the tensor that gap nodes rebuild under ``name``, as its values and their positions."""
        return decode_gap(graph, name, encoding=self.name, split=self.split)


def scatter(prefix: str, background: str, codes: Codes, values: str, *, split: bool = False) -> Stored:
    """Return the parts that overwrite ``background`` with the values of ``codes`` under the name ``{prefix}f``."""
    store_values = store_split(f"{prefix}v", codes.values) if split else store(f"{prefix}v", codes.values, values)
    nodes: list[NodeProto] = [*store_values.nodes]
    shared: dict[str, Shared] = dict(store_values.shared)
    at = _positions(prefix, codes, nodes, shared)
    nodes.append(helper.make_node("ScatterElements", [background, at, f"{prefix}v"], [f"{prefix}f"]))
    initializers = [_code_tensor(f"{prefix}c", codes.low, codes.low_bits), *store_values.initializers]
    if codes.extra.size:
        initializers.append(_code_tensor(f"{prefix}x", codes.extra, codes.extra_bits))
    return Stored(initializers=tuple(initializers), nodes=tuple(nodes), shared=shared)


def _positions(prefix: str, codes: Codes, nodes: list[NodeProto], shared: dict[str, Shared]) -> str:
    """Append the nodes that turn codes into positions; return the name of the positions."""
    axis = _shared_scalar("/axis", np.int64(0), shared)
    steps = f"{prefix}s"
    nodes.append(helper.make_node("Cast", [f"{prefix}c"], [steps], to=TensorProto.INT32))
    if codes.extra.size:
        skip = _shared_integer(skip_code(codes.extra_bits), shared)
        unit = _shared_integer(2**codes.low_bits, shared)
        nothing = _shared_integer(0, shared)
        code, target, counts, amount = (f"{prefix}{letter}" for letter in "etlu")
        nodes += [
            helper.make_node("Cast", [f"{prefix}x"], [code], to=TensorProto.INT32),
            helper.make_node("CumSum", [code, axis], [target]),
            helper.make_node("Less", [code, skip], [counts]),
            helper.make_node("Where", [counts, unit, nothing], [amount]),
            helper.make_node("ScatterElements", [steps, target, amount], [f"{prefix}d"], reduction="add"),
        ]
        steps = f"{prefix}d"
    nodes.append(helper.make_node("CumSum", [steps, axis], [f"{prefix}a"], exclusive=1))
    return f"{prefix}a"


def _code_tensor(name: str, codes: NDArray[np.int64], bits: int) -> TensorProto:
    if bits == 4:
        return nibble_tensor(name, codes.astype(np.uint8))
    return array_tensor(name, codes.astype(np.uint8 if bits == 8 else np.uint16))


def _shared_integer(value: int, shared: dict[str, Shared]) -> str:
    return _shared_scalar(f"/i{value}", np.int32(value), shared)


def _shared_scalar(name: str, value: np.generic, shared: dict[str, Shared]) -> str:
    shared[name] = array_tensor(name, np.asarray(value))
    return name


def shared_shape(shape: list[int], shared: dict[str, Shared]) -> str:
    """Add a shape to ``shared`` and return its name."""
    name = "/shape/" + "x".join(str(size) for size in shape)
    shared[name] = integers_tensor(name, shape)
    return name


def _zeros(size: int, shared: dict[str, Shared]) -> str:
    """One block of zeros serves all tensors of the same size."""
    name = f"/zeros/{size}"
    dimension = shared_shape([size], shared)
    shared[name] = helper.make_node("ConstantOfShape", [dimension], [name])
    return name


GAP = Gap()
"""Gap codes, values as they are."""
