"""From a dense model to an encoded one: the smallest candidate for each tensor, then one rewrite of the graph.

The rewrite works on plain protobuf and comes last, because the passes of onnx-ir, onnxscript and onnx-optimizer
drop sparse initializers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from exporters.encodings.dense import DENSE
from exporters.encodings.protocol import Encoded, Encoding, Shared
from exporters.encodings.values import rounded
from exporters.errors import ExportError
from exporters.tensors import element_count, field_bytes, read_array

_LOG = logging.getLogger(__name__)

# Below this, names and nodes outweigh anything that could be saved.
_SMALLEST_ELEMENTS = 16


def weight_tensors(model: ModelProto) -> list[TensorProto]:
    """Return the initializers that an encoding may replace: float32, at least one axis, not a graph output."""
    outputs = {value.name for value in model.graph.output}
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) >= 1
        and element_count(tensor) >= _SMALLEST_ELEMENTS
        and tensor.name not in outputs
    ]


def encode_model(model: ModelProto, encodings: Sequence[Encoding], values: str) -> dict[str, Encoded]:
    """Rewrite the weights of ``model`` in place, each in the encoding that adds the fewest bytes to the file.

    Args:
        model: A model whose weights are plain initializers.
        encodings: The candidates; on a tie the first one wins.
        values: ``"float32"`` (exact) or ``"float16"``, for tensors of at least two axes; biases stay float32.

    Returns:
        What became of each weight, by tensor name.
    """
    graph = model.graph
    _refuse_taken_names(model)
    offers = [
        _offers(tensor, encodings, values, prefix=f"/{index}/")
        for index, tensor in enumerate(sorted(weight_tensors(model), key=element_count, reverse=True))
    ]
    parts = _smallest_choice(offers)
    chosen = {part.name: part for part in parts}
    shared = _shared(parts)
    kept = [tensor for tensor in graph.initializer if tensor.name not in chosen]
    shared_nodes = [part for part in shared.values() if isinstance(part, NodeProto)]
    nodes = [*shared_nodes, *(node for part in parts for node in part.nodes), *graph.node]
    initializers = [
        *kept,
        *(part for part in shared.values() if isinstance(part, TensorProto)),
        *(tensor for part in parts for tensor in part.initializers),
    ]
    _replace(graph.initializer, initializers)
    _replace(graph.node, nodes)
    graph.sparse_initializer.extend(tensor for part in parts for tensor in part.sparse_initializers)
    return chosen


def _offers(tensor: TensorProto, encodings: Sequence[Encoding], values: str, *, prefix: str) -> list[Encoded]:
    """Return the tensor in every encoding that takes it, dense at least."""
    array = np.asarray(read_array(tensor), dtype=np.float32)
    kind = values if array.ndim >= 2 else "float32"
    try:
        weights = rounded(array, kind)
    except OverflowError:
        _LOG.warning("%s holds weights beyond the range of float16 and stays float32", tensor.name)
        weights, kind = array, "float32"
    found = [encoding.encode(tensor.name, weights, values=kind, prefix=prefix) for encoding in encodings]
    taken = [item for item in found if item is not None]
    return taken or [DENSE.encode(tensor.name, weights, values=kind, prefix=prefix)]


def _smallest_choice(offers: Sequence[list[Encoded]]) -> list[Encoded]:
    """Return one offer a tensor so that the sum is small, shared parts counted once.

    A shared table may be too dear for each single tensor and yet pay for all together. So the greedy choice is
    made with each encoding left out in turn, and again with the shared parts of that first choice for nothing.
    """
    names = {item.encoding for offer in offers for item in offer}
    best: list[Encoded] | None = None
    best_bytes = 0
    for without in (None, *sorted(names)):
        allowed = [[item for item in offer if item.encoding != without] or offer for offer in offers]
        first = _greedy(allowed, {})
        for choice in (first, _greedy(offers, _shared(first))):
            total = sum(item.own_bytes for item in choice)
            total += sum(field_bytes(part) for part in _shared(choice).values())
            if best is None or total < best_bytes:
                best, best_bytes = choice, total
    return best or []


def _greedy(offers: Sequence[list[Encoded]], present: Mapping[str, Shared]) -> list[Encoded]:
    """Take the cheapest offer of one tensor after the other; the first pays for the parts that others share."""
    shared = dict(present)
    choice = []
    for offer in offers:
        choice.append(min(offer, key=lambda item: item.size_bytes(shared)))
        shared.update(choice[-1].shared)
    return choice


def _shared(choice: Sequence[Encoded]) -> dict[str, Shared]:
    return {name: part for item in choice for name, part in item.shared.items()}


def _refuse_taken_names(model: ModelProto) -> None:
    """New names begin with a slash, which torch never gives to a value; two equal names would be a broken file."""
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    names += [name for node in graph.node for name in node.output]
    taken = next((name for name in names if name.startswith("/")), None)
    if taken is not None:
        raise ExportError(f"model: the graph has a value called {taken!r}; names with a leading slash are reserved")


def _replace(field: object, items: Sequence[TensorProto] | Sequence[NodeProto]) -> None:
    kept = list(items)
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]
