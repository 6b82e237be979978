"""Inputs for a session: random ones out of its metadata, and batches of given ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime_check.errors import CheckError, one_line
from runtime_check.session import run

Feed = Mapping[str, NDArray[Any]]

_FLOATS: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_INTEGERS: dict[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
_MAX_ELEMENTS = 2**30


@dataclass(frozen=True, kw_only=True)
class SampleInput:
    """The one input of a classifier: its name, its element type and the batch size its file is fixed to.

    `batch` is None for a free batch dimension; `shape` is one sample's shape with None for free dimensions.
    """

    name: str
    dtype: type[np.floating[Any]]
    batch: int | None
    shape: tuple[int | None, ...]


def parse_shapes(items: tuple[str, ...]) -> dict[str, int]:
    """Turn `NAME=VALUE` texts (`height=224` or `input.2=224`) into a mapping; CheckError naming `--shape`."""
    shapes: dict[str, int] = {}
    for item in items:
        name, equals, value = item.rpartition("=")
        if not equals or not name or not value.isascii() or not value.isdigit() or int(value) < 1:
            raise CheckError(
                f"--shape takes NAME=VALUE with a positive integer, as in height=224, not {one_line(item)!r}"
            )
        shapes[name] = int(value)
    return shapes


def random_feed(
    session: ort.InferenceSession,
    shapes: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    name: str = "the model",
) -> dict[str, NDArray[Any]]:
    """Make seeded random inputs that fit the inputs a session declares.

    A free first dimension becomes 1 (the batch). Any other free dimension is looked up in `shapes`, by its
    symbolic name or as `input.axis`. Floats are standard normal, integers and booleans are 0 or 1, so that
    they are valid indices too.

    Raises:
        CheckError: a free dimension without a value (names it and `--shape`), a name in `shapes` that the
            model does not have, an input that is not a numeric tensor, or more than 2^30 elements.
    """
    wanted = dict(shapes or {})
    known: set[str] = set()
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[Any]] = {}
    for tensor in session.get_inputs():
        shape = tuple(_size(tensor.name, axis, size, wanted, known, name) for axis, size in enumerate(tensor.shape))
        if math.prod(shape) > _MAX_ELEMENTS:
            raise CheckError(f"input {one_line(tensor.name)} of {name} has shape {shape}: more than 2^30 elements")
        if tensor.type in _FLOATS:
            feed[tensor.name] = np.asarray(rng.standard_normal(shape), dtype=_FLOATS[tensor.type])
        elif tensor.type in _INTEGERS:
            feed[tensor.name] = np.asarray(rng.integers(0, 2, shape), dtype=_INTEGERS[tensor.type])
        else:
            raise CheckError(
                f"input {one_line(tensor.name)} of {name} has type {one_line(tensor.type)}; "
                "random values can be made for numeric tensors only"
            )
    unknown = sorted(set(wanted) - known)
    if unknown:
        choice = ", ".join(sorted(known)) or "none"
        raise CheckError(
            f"--shape names {one_line(unknown[0])}, which {name} does not have (free dimensions: {one_line(choice)})"
        )
    return feed


def sample_input(session: ort.InferenceSession, name: str) -> SampleInput:
    """Describe the single float input of a classifier; CheckError when the model has another signature."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or not inputs[0].shape or inputs[0].type not in _FLOATS:
        found = ", ".join(f"{i.name}: {i.type}{i.shape}" for i in inputs) or "none"
        raise CheckError(f"{name} must have exactly one float input with a batch dimension, but has {one_line(found)}")
    sizes = [size if isinstance(size, int) else None for size in inputs[0].shape]
    return SampleInput(name=inputs[0].name, dtype=_FLOATS[inputs[0].type], batch=sizes[0], shape=tuple(sizes[1:]))


def check_samples(model: SampleInput, shape: tuple[int, ...], name: str) -> None:
    """Raise CheckError unless inputs of `shape` [N, ...] fit the model's input."""
    got = shape[1:]
    fits = len(got) == len(model.shape) and all(
        want is None or want == have for want, have in zip(model.shape, got, strict=True)
    )
    if not fits:
        want_text = "×".join("?" if size is None else str(size) for size in model.shape)
        got_text = "×".join(map(str, got)) or "scalar"
        raise CheckError(f"samples have shape {got_text}, but {name} takes {want_text or 'scalar'}")


def classify(
    session: ort.InferenceSession, inputs: NDArray[Any], name: str, batch_size: int = 64
) -> NDArray[np.float64]:
    """Run a classifier on `inputs` [N, ...] and return its first output as [N, classes] in float64.

    A model whose batch dimension is fixed is fed exactly that many samples at a time; the last batch is
    filled up with copies of its last sample, whose outputs are dropped.

    Raises:
        CheckError: inputs that do not fit, or an output that is not [N, classes].
    """
    model = sample_input(session, name)
    check_samples(model, inputs.shape, name)
    parts = [
        _scores(run(session, {model.name: batch}, name), len(batch), name)[:rows]
        for batch, rows in _batches(inputs, model, batch_size)
    ]
    if not parts:
        raise CheckError(f"there are no samples to run {name} on; give at least one")
    return np.concatenate(parts)


def _batches(inputs: NDArray[Any], model: SampleInput, batch_size: int) -> Iterator[tuple[NDArray[Any], int]]:
    size = model.batch or batch_size
    for start in range(0, len(inputs), size):
        batch = np.ascontiguousarray(inputs[start : start + size], dtype=model.dtype)
        rows = len(batch)
        if model.batch is not None and rows < size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - rows, axis=0)])
        yield batch, rows


def _scores(outputs: list[Any], rows: int, name: str) -> NDArray[np.float64]:
    first = np.asarray(outputs[0] if outputs else 0)
    if first.dtype.kind not in "fiu" or first.ndim != 2 or len(first) != rows or first.shape[1] < 1:
        found = f"{first.dtype}{list(first.shape)}"
        raise CheckError(f"the first output of {name} must be numbers of shape [{rows}, classes], but is {found}")
    return np.asarray(first, dtype=np.float64)


def _size(tensor: str, axis: int, size: object, wanted: Mapping[str, int], known: set[str], name: str) -> int:
    if isinstance(size, int) and size >= 0:
        return size
    by_axis = f"{tensor}.{axis}"
    keys = [size, by_axis] if isinstance(size, str) and size else [by_axis]
    known.update(keys)
    for key in keys:
        if key in wanted:
            return wanted[key]
    if axis == 0:
        return 1
    raise CheckError(
        f"input {one_line(tensor)} of {name} has a free dimension (axis {axis}); "
        f"give its size with --shape {one_line(keys[0])}=VALUE"
    )
