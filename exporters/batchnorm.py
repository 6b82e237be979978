"""Folding BatchNormalization into the convolution or linear layer before it.

In eval mode y = (x − mean)·s + b with s = scale / √(var + ε) is affine, so W' = s·W and bias' = (bias − mean)·s + b
give the same outputs. torch's exporter folds most of them itself; this pass makes sure of the rest and does not
depend on its version. The factor s is computed in float64 and rounded to float32, so that a file may also make the
product s·W itself (encodings/seeded.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper

from exporters.encodings.protocol import GraphView
from exporters.tensors import array_tensor, read_array

_Doubles = NDArray[np.float64]


def fold_batchnorm(graph: GraphProto) -> int:
    """Fold every BatchNormalization whose input comes from a Conv, ConvTranspose or Gemm with constant weights.

    A BatchNormalization that follows anything else, a layer whose output is used elsewhere too, or a layer whose
    weights are shared, stays as it is.

    Returns:
        The number of folded nodes.
    """
    folded = 0
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        folded += _fold_one(graph, norm)
    if folded:
        _drop_unused(graph)
    return folded


def _fold_one(graph: GraphProto, norm: NodeProto) -> bool:
    view = GraphView(graph)
    layer = view.producers.get(norm.input[0])
    if layer is None or layer.op_type not in _AXES or view.readers(norm.input[0]) != 1:
        return False
    constants = [_constant(view, name) for name in norm.input[1:5]]
    weight = _constant(view, layer.input[1])
    bias_name = layer.input[2] if len(layer.input) > 2 else ""
    bias = _constant(view, bias_name) if bias_name else np.zeros(1)
    if weight is None or bias is None or any(item is None for item in constants) or len(norm.output) != 1:
        return False
    if view.readers(layer.input[1]) != 1 or (bias_name and view.readers(bias_name) != 1):
        return False
    if _attribute(norm, "training_mode", 0) or _attribute(layer, "beta", 1.0) != 1.0:
        return False
    scale, shift, mean, variance = (np.asarray(item) for item in constants)
    factor = scale / np.sqrt(variance + _attribute(norm, "epsilon", 1e-5))
    spread = _spread(layer, weight, factor)
    if spread is None:
        return False
    offset = np.broadcast_to(bias, factor.shape) - mean
    new_bias = bias_name or f"{layer.input[1]}.bias"
    if not bias_name and new_bias in view.initializers:
        new_bias = f"{norm.output[0]}.bias"
    # In float64 the product of two float32 numbers is exact, so this is the product in float32.
    _set(graph, layer.input[1], weight * spread.astype(np.float32))
    _set(graph, new_bias, offset * factor + shift)
    if len(layer.input) > 2:
        layer.input[2] = new_bias
    else:
        layer.input.append(new_bias)
    layer.output[0] = norm.output[0]
    graph.node.remove(norm)
    return True


# The axis of output channels of each layer's weight; a Gemm's depends on transB.
_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}


def _spread(layer: NodeProto, weight: _Doubles, factor: _Doubles) -> _Doubles | None:
    """Return ``factor`` (one number an output channel) in a shape that multiplies ``weight``."""
    if layer.op_type == "Gemm" and not _attribute(layer, "transB", 0):
        return factor[None, :] if weight.shape[1] == factor.size else None
    if layer.op_type != "ConvTranspose":
        return factor.reshape(-1, *[1] * (weight.ndim - 1)) if weight.shape[0] == factor.size else None
    # A transposed convolution's weight is [inputs, outputs / groups, ...], its inputs ordered by group.
    groups = int(_attribute(layer, "group", 1))
    if weight.shape[1] * groups != factor.size or weight.shape[0] % groups:
        return None
    rows = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _constant(view: GraphView, name: str) -> _Doubles | None:
    tensor = view.initializers.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    return read_array(tensor).astype(np.float64)


def _attribute(node: NodeProto, name: str, default: float) -> float:
    for item in node.attribute:
        if item.name == name:
            return float(helper.get_attribute_value(item))
    return default


def _set(graph: GraphProto, name: str, array: _Doubles) -> None:
    tensor = array_tensor(name, array.astype(np.float32))
    for existing in graph.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def _drop_unused(graph: GraphProto) -> None:
    view = GraphView(graph)
    unused = [tensor for tensor in graph.initializer if not view.readers(tensor.name)]
    for tensor in unused:
        graph.initializer.remove(tensor)
