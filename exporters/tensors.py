"""Protobuf tensors: writing them small, reading them without trusting them, counting their bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
"""Element types that count as parameters of a network."""


def array_tensor(name: str, array: NDArray[np.generic]) -> TensorProto:
    """Return ``array`` as a tensor with its bytes in ``raw_data``."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def nibble_tensor(name: str, codes: NDArray[np.uint8]) -> TensorProto:
    """Return 1-D ``codes`` in 0..15 as a UINT4 tensor, two codes a byte, the first in the low half."""
    padded = np.concatenate([codes, np.zeros(codes.size % 2, np.uint8)])
    packed = (padded[0::2] | (padded[1::2] << 4)).astype(np.uint8)
    return helper.make_tensor(name, TensorProto.UINT4, [codes.size], packed.tobytes(), raw=True)


def integers_tensor(name: str, values: Sequence[int]) -> TensorProto:
    """Return a 1-D INT64 tensor in the varint form, which is small for small numbers."""
    tensor = TensorProto(name=name, data_type=TensorProto.INT64, dims=[len(values)])
    tensor.int64_data.extend(values)
    return tensor


class Message(Protocol):
    """Any protobuf message."""

    def ByteSize(self) -> int:
        """Return the length of its serialized form."""
        ...


def byte_size(message: Message) -> int:
    """Return the length of the serialized form; above the 2 GiB that protobuf can write, that of the raw data in it."""
    try:
        return int(message.ByteSize())
    except Exception:  # protobuf's EncodeError
        if isinstance(message, TensorProto):
            return len(message.raw_data)
        return sum(byte_size(tensor) for tensor in message.graph.initializer) if isinstance(message, ModelProto) else 0


def field_bytes(message: Message) -> int:
    """Return the bytes that ``message`` takes as a repeated field of a graph: tag, length and content."""
    size = byte_size(message)
    return 1 + max(1, (size.bit_length() + 6) // 7) + size


def element_count(tensor: TensorProto) -> int:
    """Return the number of elements that the shape of ``tensor`` announces; negative sizes are an error."""
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}")
    return math.prod(tensor.dims)


def read_array(tensor: TensorProto) -> NDArray[np.generic]:
    """Return the content of ``tensor``, however it is stored.

    No more memory is taken than the tensor's own bytes justify: the announced shape is compared with the data
    before anything is allocated.

    Raises:
        ValueError: the data lies in another file, or does not fit the announced shape or type.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(
            f"tensor {tensor.name!r} lies in an external data file; save the model as one file first "
            "(onnx.save_model(model, path, save_as_external_data=False))"
        )
    count = element_count(tensor)
    # The smallest element types take half a byte, and varint fields at least one byte an element.
    if count > 2 * byte_size(tensor):
        raise ValueError(f"tensor {tensor.name!r} announces {count} elements but holds {byte_size(tensor)} bytes")
    if tensor.data_type == TensorProto.UINT4 and tensor.HasField("raw_data"):
        return _read_nibbles(tensor, count)
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # numpy_helper raises whatever numpy or ml_dtypes raise
        raise ValueError(f"tensor {tensor.name!r} is damaged: {error}") from error


def _read_nibbles(tensor: TensorProto, count: int) -> NDArray[np.uint8]:
    """Unpack UINT4 without onnx's helper, whose element type of its own makes numpy slow."""
    packed = np.frombuffer(tensor.raw_data, np.uint8)
    if packed.size != (count + 1) // 2:
        raise ValueError(f"tensor {tensor.name!r} is damaged: {packed.size} bytes for {count} half bytes")
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].reshape(tuple(tensor.dims))


def read_floats(tensor: TensorProto) -> NDArray[np.floating]:
    """Return a floating-point tensor as float32, or float64 if that is what it holds: no value is rounded.

    Raises:
        ValueError: as ``read_array``, or the tensor holds no floating-point numbers.
    """
    if not is_supported_float(tensor):
        raise ValueError(f"tensor {tensor.name!r} does not hold floating-point numbers")
    array = read_array(tensor)
    return array.astype(np.float64 if tensor.data_type == TensorProto.DOUBLE else np.float32)


def is_supported_float(tensor: TensorProto) -> bool:
    """Return whether ``tensor`` holds floating-point numbers that count as parameters."""
    return tensor.data_type in FLOAT_TYPES
