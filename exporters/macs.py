"""Output shapes and multiply-accumulate counts of the layers of an ONNX graph, for one sample.

Shapes come from onnx's own inference on a copy of the graph in which every weight is a mere input of known
shape: nothing is decoded or copied for it, and weights in any encoding look alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from exporters.encodings.parts import integer_attribute
from exporters.tensors import byte_size

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply activations by weights."""

# Only small constants steer shapes (the target of a Reshape, say).
_LARGEST_STEERING_BYTES = 1024

Shape = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class WeightUse:
    """A layer and the input that is its constant weight."""

    node: NodeProto
    weight: str
    activation: str


def weight_use(node: NodeProto, constants: Mapping[str, tuple[int, ...]]) -> WeightUse | None:
    """Return how ``node`` uses a constant weight, or None when it is no layer or its weight is computed.

    Args:
        node: Any node.
        constants: Shapes of the constant tensors by name.
    """
    if node.op_type not in LAYER_TYPES or node.domain not in ("", "ai.onnx"):
        return None
    if len(node.input) < 2 or len(node.output) != 1:
        return None
    first, second = node.input[0], node.input[1]
    if len(constants.get(second, ())) >= 2:
        return WeightUse(node=node, weight=second, activation=first)
    # Some exporters write W·x instead of x·Wᵀ.
    if node.op_type in ("Gemm", "MatMul") and len(constants.get(first, ())) >= 2:
        return WeightUse(node=node, weight=first, activation=second)
    return None


def applications(use: WeightUse, shapes: Mapping[str, Shape], weight_shape: tuple[int, ...]) -> int | None:
    """Return how often a layer multiplies each of its weights, or None when shapes are unknown.

    A convolution applies each weight once an output position, a transposed one once an input position, a matrix
    product once a row; padding counts like any other input.
    """
    if use.node.op_type == "Conv":
        return _positions(shapes.get(use.node.output[0]))
    if use.node.op_type == "ConvTranspose":
        return _positions(shapes.get(use.activation))
    results = _product(shapes.get(use.node.output[0]))
    columns = math.prod(weight_shape) // max(1, weight_shape[_inner_axis(use)])
    return None if results is None else results // max(1, columns)


def _inner_axis(use: WeightUse) -> int:
    """Return the axis of a matrix over which the product sums."""
    first = use.weight == use.node.input[0]
    axis = -1 if first else -2
    flipped = integer_attribute(use.node, "transA" if first else "transB") if use.node.op_type == "Gemm" else 0
    return -3 - axis if flipped else axis


def _positions(shape: Shape | None) -> int | None:
    return None if shape is None or len(shape) < 2 else _product((shape[0], *shape[2:]))


def _product(shape: Shape | None) -> int | None:
    if shape is None or any(size is None for size in shape):
        return None
    return math.prod(size for size in shape if size is not None)


def batch_size(model: ModelProto) -> int:
    """Return the batch size that is fixed in the file, 1 when it is free or when there is no common one."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    ends = [value for value in graph.input if value.name not in constants]
    sizes = {next(iter(_shape(value) or ()), None) for value in (*ends[:1], *graph.output)}
    size = sizes.pop() if len(sizes) == 1 else None
    return max(1, size or 1)


def value_shapes(model: ModelProto, weights: Mapping[str, tuple[int, ...]]) -> dict[str, Shape]:
    """Return the shapes of all values, as far as they can be inferred; a free batch size is 1.

    Args:
        model: Any model.
        weights: Shapes of the tensors that are constant weights; the nodes that rebuild them are not looked at.

    Raises:
        ValueError: the graph contradicts itself.
    """
    skeleton = _skeleton(model, weights)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception as error:  # inference raises errors without a common base class
        raise ValueError(f"shapes cannot be inferred: {str(error).strip().splitlines()[0]}") from error
    graph = inferred.graph
    found = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    return {name: shape for name, shape in found.items() if shape is not None}


def _skeleton(model: ModelProto, weights: Mapping[str, tuple[int, ...]]) -> ModelProto:
    source = model.graph
    copy = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = copy.graph
    graph.name = source.name or "graph"
    constants = [tensor for tensor in source.initializer if tensor.name not in weights]
    small = [tensor for tensor in constants if byte_size(tensor) <= _LARGEST_STEERING_BYTES]
    steering = {tensor.name for tensor in small}
    graph.initializer.extend(small)
    given = {tensor.name for tensor in source.initializer} | weights.keys()
    graph.input.extend(_one_sample(value) for value in source.input if value.name not in given)
    for tensor in constants:
        if tensor.name not in steering:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims)))
    types = {tensor.name: tensor.data_type for tensor in source.initializer}
    for name, shape in weights.items():
        kind = types.get(name, TensorProto.FLOAT)
        graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    graph.output.extend(ValueInfoProto(name=value.name) for value in source.output)
    graph.node.extend(node for node in source.node if not weights.keys() & set(node.output))
    return copy


def _one_sample(value: ValueInfoProto) -> ValueInfoProto:
    """Return a graph input with its first axis set to 1 when it is free."""
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    dimensions = copy.type.tensor_type.shape.dim
    if dimensions and not dimensions[0].HasField("dim_value"):
        dimensions[0].dim_value = 1
    return copy


def _shape(value: ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(max(0, item.dim_value) if item.HasField("dim_value") else None for item in kind.shape.dim)
