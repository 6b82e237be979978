"""What is in an ONNX file: layers, sparsity, multiply-accumulates, bytes, encodings. Ours or anybody's.

The file is not trusted and never run: weights are read by numpy, kept as sparse as they are stored, and no
announced size is believed before the bytes behind it are there.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto

from exporters.encodings.protocol import Decoded, GraphView
from exporters.encodings.registry import decode
from exporters.macs import LAYER_TYPES, Shape, WeightUse, applications, batch_size, value_shapes, weight_use
from exporters.tensors import is_supported_float


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer with constant weights; figures are for one sample.

    Attributes:
        name: The name of its weight, which is the parameter's name in files that torch wrote.
        op: Conv, ConvTranspose, Gemm or MatMul.
        shape: The shape of the weight.
        parameters: Weights and biases of the layer.
        nonzero_parameters: Those that are not zero.
        macs: Multiply-accumulates, zeros included; None when the shapes cannot be inferred.
        nonzero_macs: Multiply-accumulates with a weight that is not zero.
        size_bytes: Bytes of the weight in the file, decoding nodes included.
        encoding: How the weight is stored.
        sparsity: Fraction of zeros of the weight.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    nonzero_parameters: int
    macs: int | None
    nonzero_macs: int | None
    size_bytes: int
    encoding: str
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """A whole file; multiply-accumulates are for one sample and None when one layer's are unknown.

    Attributes:
        layers: The layers in the order of the graph.
        parameters: Elements of all floating-point tensors with at least one axis.
        nonzero_parameters: Those that are not zero.
        macs: Multiply-accumulates of all layers, zeros included.
        nonzero_macs: Those with a weight that is not zero.
        size_bytes: The size of the file.
        sparsity: Fraction of zeros of all parameters.
        metadata: The file's metadata.
    """

    layers: tuple[LayerReport, ...]
    parameters: int
    nonzero_parameters: int
    macs: int | None
    nonzero_macs: int | None
    size_bytes: int
    sparsity: float
    metadata: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """Return the report as plain dicts, lists, strings and numbers."""
        document = asdict(self)
        document["layers"] = [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers]
        return document

    def figures(self) -> dict[str, int | float | None]:
        """Return the totals under the names that manifest.json and report.json use."""
        return {
            "size_bytes": self.size_bytes,
            "parameters": self.parameters,
            "nonzero_parameters": self.nonzero_parameters,
            "macs": self.macs,
            "nonzero_macs": self.nonzero_macs,
            "sparsity": self.sparsity,
        }


def inspect(path: str | os.PathLike[str]) -> ModelReport:
    """Return what is in the ONNX file ``path``.

    Raises:
        ValueError: the file is missing, no ONNX model, truncated or damaged, or keeps its weights elsewhere.
    """
    content = _read(Path(path))
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"path: {str(path)!r} is not an ONNX file, or is truncated") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ValueError(f"path: {str(path)!r} is not an ONNX file: it has no graph or no operator set")
    try:
        return inspect_model(model, size_bytes=len(content))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"path: {str(path)!r} is damaged or not supported: {error}") from error


def inspect_model(model: ModelProto, *, size_bytes: int) -> ModelReport:
    """Return what is in ``model``; see `inspect`."""
    _inline_constants(model)
    tensors = _constant_tensors(model)
    seen = _with_transposed(model, tensors)
    known = {name: tensor.shape for name, tensor in seen.items()}
    uses = [use for node in model.graph.node if (use := weight_use(node, known)) is not None]
    shapes = value_shapes(model, {name: tensor.shape for name, tensor in tensors.items()}) if uses else {}
    batch = batch_size(model)
    layers = tuple(_layer(use, seen, shapes, batch) for use in uses)
    parameters = sum(tensor.parameters for tensor in tensors.values())
    nonzeros = sum(tensor.nonzeros for tensor in tensors.values())
    return ModelReport(
        layers=layers,
        parameters=parameters,
        nonzero_parameters=nonzeros,
        macs=_total([layer.macs for layer in layers]),
        nonzero_macs=_total([layer.nonzero_macs for layer in layers]),
        size_bytes=size_bytes,
        sparsity=_fraction(nonzeros, parameters),
        metadata={item.key: item.value for item in model.metadata_props},
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"path: cannot read {str(path)!r}: {error.strerror or error}") from error


def _inline_constants(model: ModelProto) -> None:
    """Turn Constant nodes that hold tensors into initializers, so that both spellings look alike."""
    graph = model.graph
    constants = [node for node in graph.node if node.op_type == "Constant" and len(node.output) == 1]
    for node in constants:
        tensor = _constant_tensor(node)
        if tensor is not None:
            graph.initializer.append(tensor)
            graph.node.remove(node)


def _constant_tensor(node: NodeProto) -> TensorProto | None:
    attribute = next((item for item in node.attribute if item.name == "value" and item.HasField("t")), None)
    if attribute is None:
        return None
    tensor = TensorProto()
    tensor.CopyFrom(attribute.t)
    tensor.name = node.output[0]
    return tensor


def _constant_tensors(model: ModelProto) -> dict[str, Decoded]:
    """Return every parameter tensor of the graph, decoded, by the name its consumers use."""
    graph = model.graph
    view = GraphView(graph)
    weights = {name for node in graph.node if node.op_type in LAYER_TYPES for name in node.input}
    names = [tensor.name for tensor in graph.initializer if is_supported_float(tensor) and tensor.dims]
    names += [tensor.values.name for tensor in graph.sparse_initializer]
    # A block of zeros is a parameter only where a layer reads it; elsewhere it is part of a computation.
    ends = ("Cast", "Mul", "Reshape", "Transpose")
    names += [node.output[0] for node in graph.node if node.op_type in ends and node.output]
    names += [name for name in weights if view.node(name, "ConstantOfShape") is not None]
    decoded = {name: tensor for name in names if (tensor := decode(view, name)) is not None}
    inner = {part for name, tensor in decoded.items() for part in tensor.parts if part != name}
    # All tensors of a generator have one set of its names; a union of each of them would be quadratic.
    shared: frozenset[str] = frozenset().union(*{tensor.shared for tensor in decoded.values()})
    hidden = inner | shared
    return {name: tensor for name, tensor in decoded.items() if name not in hidden}


def _with_transposed(model: ModelProto, tensors: dict[str, Decoded]) -> dict[str, Decoded]:
    """Return ``tensors`` and, under their own names, transposed forms and copies that nodes make of them."""
    seen = dict(tensors)
    for node in model.graph.node:
        if node.op_type not in ("Transpose", "Identity") or len(node.input) != 1 or len(node.output) != 1:
            continue
        source = seen.get(node.input[0])
        if source is None or node.output[0] in seen:
            continue
        order = [int(axis) for item in node.attribute if item.name == "perm" for axis in item.ints]
        if node.op_type == "Identity":
            order = list(range(len(source.shape)))
        order = order or list(reversed(range(len(source.shape))))
        if sorted(order) == list(range(len(source.shape))):
            seen[node.output[0]] = replace(source, shape=tuple(source.shape[axis] for axis in order))
    return seen


def _layer(use: WeightUse, tensors: dict[str, Decoded], shapes: dict[str, Shape], batch: int) -> LayerReport:
    weight = tensors[use.weight]
    bias = tensors.get(use.node.input[2]) if len(use.node.input) > 2 else None
    times = applications(use, shapes, weight.shape)
    per_sample = None if times is None else times // batch
    return LayerReport(
        name=use.weight,
        op=use.node.op_type,
        shape=weight.shape,
        parameters=weight.parameters + (bias.parameters if bias else 0),
        nonzero_parameters=weight.nonzeros + (bias.nonzeros if bias else 0),
        macs=None if per_sample is None else weight.parameters * per_sample,
        nonzero_macs=None if per_sample is None else weight.nonzeros * per_sample,
        size_bytes=weight.size_bytes,
        encoding=weight.encoding,
        sparsity=_fraction(weight.nonzeros, weight.parameters),
    )


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _fraction(nonzeros: int, elements: int) -> float:
    return 1.0 - nonzeros / elements if elements else 0.0
