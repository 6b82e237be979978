"""The export of a model: trace, encode, check, verify, write."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from exporters.encodings.protocol import Encoded, GraphView
from exporters.encodings.registry import candidates, check_values, decode
from exporters.encodings.seeded import SEEDED, Seeded
from exporters.encodings.selection import encode_model, weight_tensors
from exporters.encodings.values import rounded
from exporters.errors import ExportError
from exporters.files import check_target, write_atomically
from exporters.graph import build_graph
from exporters.report import ExportReport, TensorReport
from exporters.seeds import check_seeds, prepare
from exporters.tensors import byte_size, field_bytes, read_array

_LARGEST_BYTES = 2**31 - 1


def export(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    encoding: str = "auto",
    values: str = "float32",
    dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
    seeds: Mapping[str, Mapping[str, Any]] | None = None,
) -> ExportReport:
    """Write ``model`` as one self-contained ONNX file of standard operators.

    The file appears complete or not at all. Before it takes its name it has passed onnx's checker and been read
    back, and every weight in it has been found equal, bit for bit, to the one that was meant to be stored.

    Args:
        model: A plain module (after ``compress.fold``); exported in eval mode and left as it is.
        example_inputs: One tensor, or the tensors of the forward pass in order; their first axis is the batch.
        path: The file to write; its folder must exist. An existing file is replaced.
        encoding: ``"auto"`` takes the smallest portable exact encoding for each tensor; or ``"dense"``,
            ``"coo"``, ``"gap"``, ``"packed"``, ``"seeded"`` (docs/encodings.md). Where dense is smaller, dense is
            taken.
        values: ``"float32"`` is exact; ``"float16"`` halves the values and rounds weights (not biases).
        dynamic_batch: Let the batch size of the file vary.
        metadata: Strings for the file's metadata, beside encoding, values, torch and weights_sha256.
        seeds: For parameters with frozen values where these come from: parameter name -> record with the entries
            seed, stream, distribution, scale, shape (``compress.frozen.FrozenValues.to_json``). Only ``"auto"`` and
            ``"seeded"`` use them. Weights that differ from the frozen values are the trained ones.

    Returns:
        What was written, tensor by tensor.

    Raises:
        ExportError: an argument is wrong, the model cannot be traced (the message says where), or the file
            cannot be written.
    """
    candidates(encoding)
    check_values(values)
    check_metadata(metadata)
    check_target(Path(path))
    named = dict(model.named_parameters(remove_duplicate=False)) if isinstance(model, nn.Module) else {}
    _check_needed(encoding, seeds)
    check_seeds(seeds, {name: tuple(parameter.shape) for name, parameter in named.items()})
    proto = build_graph(model, example_inputs, dynamic_batch=dynamic_batch)
    parameters = {name: named[name].detach().float().cpu().numpy() for name in seeds or {}}
    return write_model(
        proto, path, encoding=encoding, values=values, metadata=metadata, seeds=seeds, parameters=parameters
    )


def write_model(
    model: ModelProto,
    path: str | os.PathLike[str],
    *,
    encoding: str = "auto",
    values: str = "float32",
    metadata: Mapping[str, str] | None = None,
    seeds: Mapping[str, Mapping[str, Any]] | None = None,
    parameters: Mapping[str, NDArray[np.float32]] | None = None,
) -> ExportReport:
    """Write an ONNX model whose weights are plain initializers; the second half of `export`.

    Args:
        model: The model, as `exporters.graph.build_graph` returns it; not changed.
        path: As for `export`.
        encoding: As for `export`.
        values: As for `export`.
        metadata: As for `export`.
        seeds: As for `export`.
        parameters: The parameters that ``seeds`` names, before BatchNorm was folded into them; by default the
            tensors of ``model``.

    Raises:
        ExportError: an argument is wrong, onnx's checker refuses the model, or the file cannot be written.
    """
    encodings = candidates(encoding)
    _check_needed(encoding, seeds)
    check_values(values)
    properties = check_metadata(metadata)
    target = Path(path)
    check_target(target)
    proto = ModelProto()
    proto.CopyFrom(model)
    dense_size_bytes = byte_size(proto)
    weights = {tensor.name: read_array(tensor) for tensor in weight_tensors(proto)}
    if any(item is SEEDED for item in encodings):
        frozen = _frozen(proto, weights, seeds, parameters)
        encodings = tuple(frozen if item is SEEDED else item for item in encodings)
    encoded = encode_model(proto, encodings, values)
    expected = {name: _expected(array, encoded[name]) for name, array in weights.items()}
    described = {"encoding": encoding, "values": values, "torch": torch.__version__}
    described["weights_sha256"] = weights_hash(expected)
    for key, value in {**described, **properties}.items():
        dense_size_bytes += field_bytes(proto.metadata_props.add(key=key, value=value))
    content = serialize(proto)
    write_atomically(target, content, check=lambda written: verify(written, expected))
    return ExportReport(
        path=str(target),
        size_bytes=len(content),
        dense_size_bytes=dense_size_bytes,
        encoding=encoding,
        values=values,
        tensors=tuple(_tensor_report(encoded[name], array) for name, array in expected.items()),
    )


def _check_needed(encoding: str, seeds: Mapping[str, Mapping[str, Any]] | None) -> None:
    if encoding == SEEDED.name and not seeds:
        raise ExportError("encoding: 'seeded' needs the seeds of frozen parameters; give seeds or use 'auto'")


def _frozen(
    model: ModelProto,
    weights: Mapping[str, NDArray[np.generic]],
    seeds: Mapping[str, Mapping[str, Any]] | None,
    parameters: Mapping[str, NDArray[np.float32]] | None,
) -> Seeded:
    arrays = {name: np.asarray(array, dtype=np.float32) for name, array in weights.items()}
    known = arrays if parameters is None else parameters
    records = check_seeds(seeds, {name: tuple(array.shape) for name, array in known.items()})
    return prepare(records, arrays, known, GraphView(model.graph).names)


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return the metadata as a dict, or raise ExportError when a key or value is not a string."""
    properties = dict(metadata or {})
    for key, value in properties.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ExportError(f"metadata: {key!r} must map a string to a string; encode other values as JSON")
    return properties


def weights_hash(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """Return the SHA-256 of all weights in the order of their names: name, a zero byte, little-endian float32."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(weights[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def serialize(model: ModelProto) -> bytes:
    """Return the bytes of a model that passes onnx's checker, or raise ExportError."""
    if (size := byte_size(model)) > _LARGEST_BYTES:
        raise ExportError(
            f"model: the file would take {size} bytes, an ONNX file holds at most {_LARGEST_BYTES}; "
            "compress it further or use values='float16'"
        )
    try:
        # Full shape inference does not know sparse initializers and reports their shape as wrong.
        onnx.checker.check_model(model, full_check=not model.graph.sparse_initializer)
    except Exception as error:  # the checker's errors share no base class
        raise ExportError(f"model: onnx's checker refuses the graph: {str(error).splitlines()[0]}") from error
    return bytes(model.SerializeToString())


def verify(path: Path, expected: Mapping[str, NDArray[np.float32]]) -> None:
    """Read the file back and raise ExportError unless every tensor has exactly the expected bits."""
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    graph = GraphView(model.graph)
    for name, array in expected.items():
        decoded = decode(graph, name)
        restored = decoded.dense() if decoded is not None else np.zeros(0, np.float32)
        same = restored.shape == array.shape and restored.dtype == array.dtype
        if not same or not np.array_equal(restored.view(np.uint32), array.view(np.uint32)):
            raise ExportError(f"path: {name!r} did not survive writing; this is a fault of the exporter, report it")


def _expected(weights: NDArray[np.generic], encoded: Encoded) -> NDArray[np.float32]:
    if encoded.restored is not None:
        return encoded.restored
    array = np.ascontiguousarray(weights, dtype=np.float32)
    return rounded(array, stored_values(encoded))


def stored_values(encoded: Encoded) -> str:
    """Return the type in which the values of a tensor are stored."""
    tensors = (*encoded.initializers, *(sparse.values for sparse in encoded.sparse_initializers))
    return "float16" if any(item.data_type == TensorProto.FLOAT16 for item in tensors) else "float32"


def _tensor_report(encoded: Encoded, weights: NDArray[np.float32]) -> TensorReport:
    return TensorReport(
        name=encoded.name,
        shape=weights.shape,
        nonzeros=int(np.count_nonzero(weights)),
        encoding=encoded.encoding,
        values=stored_values(encoded),
        size_bytes=encoded.own_bytes,
        dense_bytes=weights.nbytes,
    )
