"""What happens to a traced graph before its weights are encoded: names, noise, tiny numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from exporters.errors import ExportError
from exporters.tensors import array_tensor, read_array

SMALLEST_NORMAL = np.float32(1.17549435e-38)
"""Magnitudes below this are denormal; arithmetic with them has made whole networks several times slower."""

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def strip_noise(model: ModelProto) -> None:
    """Remove what only debugging needs: source lines, intermediate shapes, documentation."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    del graph.value_info[:]
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    model.ClearField("doc_string")
    del model.metadata_props[:]


def name_ends(graph: GraphProto, *, dynamic_batch: bool) -> None:
    """Call a single input "input", a single output "output", and the dynamic axis "batch"."""
    renames: dict[str, str] = {}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    for ends, name in ((graph.input, "input"), (graph.output, "output")):
        if len(ends) == 1 and name not in taken:
            renames[ends[0].name] = name
    if len(graph.input) == len(graph.output) == 1 and graph.input[0].name == graph.output[0].name:
        raise ExportError("model: its output is its input; there is nothing to export")
    _rename(graph, renames)
    if dynamic_batch:
        _name_batch(graph)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)


def _name_batch(graph: GraphProto) -> None:
    """torch calls the axis s77 or the like; it is the first axis of the first input."""
    first = graph.input[0].type.tensor_type.shape.dim
    symbol = first[0].dim_param if first else ""
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if symbol and dimension.dim_param == symbol:
                dimension.dim_param = "batch"


def flush_tiny(graph: GraphProto) -> int:
    """Set denormal float32 numbers and negative zeros of all constant tensors to +0.0.

    Scalars are left alone: they are constants of the computation, not weights.

    Returns:
        The number of denormals that were flushed.
    """
    count = 0
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or not tensor.dims:
            continue
        array = np.asarray(read_array(tensor), dtype=np.float32)
        clean = flushed(array)
        if not np.array_equal(array.view(np.uint32), clean.view(np.uint32)):
            count += int(np.count_nonzero(array)) - int(np.count_nonzero(clean))
            tensor.CopyFrom(array_tensor(tensor.name, clean))
    return count


def flushed(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``array`` with +0.0 in the place of denormal numbers and negative zeros."""
    return np.where(np.abs(array) < SMALLEST_NORMAL, np.float32(0), array)


def refuse_broken_weights(graph: GraphProto) -> None:
    """Raise ExportError when a layer's weight or bias is not finite, as when BatchNorm divides by zero."""
    layers = {name for node in graph.node if node.op_type in _LAYERS for name in node.input[1:]}
    for tensor in graph.initializer:
        read = tensor.name in layers and tensor.data_type == TensorProto.FLOAT
        if read and not np.isfinite(read_array(tensor)).all():
            raise ExportError(f"model: {tensor.name!r} is not finite after folding BatchNorm; retrain or repair it")
