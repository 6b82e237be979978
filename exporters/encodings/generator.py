"""The part of a graph that regenerates frozen weights from a seed, and the same numbers in numpy.

Every weight is an entry of a table, chosen by bits of a Threefry word: 10 bits for normal and uniform values, so
that a word serves 3 weights, or one bit for ±1. A tensor is cut into rows of 6144 weights, for which L = 1024 (or
96) blocks are needed; row r has the counters (0 .. L − 1, stream·2^18 + r) under the key (seed, 0). In a row come the
weights of the first words of all blocks, then those of the second words; of each word the lowest bits of all L
blocks, then the next higher bits. A graph needs one evaluation for all tensors: their rows lie one below the other.

What a runtime allocates while it folds the nodes is nearly all of the time that it takes. Hence the 10 bits.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from exporters.encodings.protocol import Shared
from exporters.encodings.threefry import threefry, threefry_nodes
from exporters.tensors import array_tensor, integers_tensor

BITS = {"xavier_normal": 10, "kaiming_uniform": 10, "signed_constant": 1}
"""The distributions and the random bits that each weight takes."""

ROW = 6144
"""Weights of a row."""

ROWS_A_STREAM = 2**18
STREAMS = 2**13

LARGEST = 2**26
"""The most weights that one file regenerates: a runtime takes about 150 bytes for each while it loads the file."""

SEED, STARTS, JUMPS, SIZES, TABLE = "S", "A", "J", "N", "T"
"""Names of the parts that tell what is generated; see `generate`."""

PREFIXES = ("", "/")
"""What the names of all parts begin with: nothing, or a slash where the graph has such names already."""

# The normal distribution as t·(c0 + Σ c/(d − t²)), fitted: within 7e-4 in every probability, variance 1.
_NORMAL = (0.650749, (1.087783, 2.107651), (0.089832, 1.09708), (0.004893, 1.003597))
_ROWS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class Source:
    """One tensor of the generator: its stream and its number of weights."""

    stream: int
    size: int

    @property
    def rows(self) -> int:
        """Rows that it takes, the last one perhaps not to its end."""
        return -(-self.size // ROW)


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The part of a graph that regenerates weights.

    Attributes:
        parts: Nodes and constants, in order, by name.
        indices: The name of each tensor's indices into the table: INT32, flat.
        table: The name of the table.
    """

    parts: dict[str, Shared]
    indices: tuple[str, ...]
    table: str

    @property
    def names(self) -> set[str]:
        """Every name that it gives away."""
        nodes = (part for part in self.parts.values() if isinstance(part, NodeProto))
        return {*self.parts, *(name for node in nodes for name in node.output)}


def generate(seed: int, distribution: str, sources: Sequence[Source], *, prefix: str) -> Generator:
    """Return the part of a graph that yields the table (`TABLE`) and the indices of all tensors.

    Four constants tell everything in it that is not the same in all files: `SEED`; `STARTS`, the first row of each
    tensor; `JUMPS`, what to add to the counter of rows there; and `SIZES`, the weights of each tensor, followed by
    the unused rest of its last row if there is one.

    Args:
        seed: 32 bits.
        distribution: One of `BITS`.
        sources: At least one tensor.
        prefix: One of `PREFIXES`.
    """
    build = _Build(prefix)
    build.table(distribution)
    shifts = _shifts(distribution)
    x0, x1 = _counters(build, seed, _lanes(distribution), sources)
    words = threefry_nodes(seed, x0, x1, build.operator, build.word)
    joined = build.node("Concat", *words, axis=1)
    field = np.int64(2 ** BITS[distribution] - 1)
    chosen = build.operator("BitwiseAnd", joined, build.constant(_signed(field << shifts)))
    rows = build.operator("Div", chosen, build.constant(_signed(np.int64(1) << shifts)))
    sizes: list[int] = []
    places: list[int] = []
    for source in sources:
        places.append(len(sizes))
        sizes += [size for size in (source.size, source.rows * ROW - source.size) if size]
    flat = build.node("Reshape", rows, build.put(integers_tensor(build.name(), [-1])))
    split = build.nodes("Split", flat, build.put(integers_tensor(prefix + SIZES, sizes)), outputs=len(sizes))
    build.put_numbers()
    return Generator(parts=build.parts, indices=tuple(split[place] for place in places), table=prefix + TABLE)


def _counters(build: _Build, seed: int, lanes: int, sources: Sequence[Source]) -> tuple[str, str]:
    """Append the nodes of both counters, the first with ``seed`` added: [lanes] and [rows, 1, 1, 1]."""
    rows = np.array([source.rows for source in sources], np.int64)
    firsts = np.array([source.stream * ROWS_A_STREAM for source in sources], np.int64)
    # The counter grows by one a row; a tensor's first row also undoes what the tensor before it has counted.
    jumps = np.diff(firsts, prepend=0) - np.concatenate([[0], rows[:-1] - 1])
    starts = np.cumsum(rows) - rows
    at, by = (
        build.put(array_tensor(build.prefix + name, array.astype(np.int32).reshape(-1, 1, 1, 1)))
        for name, array in ((STARTS, starts), (JUMPS, jumps))
    )
    zero, one, end = (build.constant(np.asarray(value, np.int32)) for value in (0, 1, lanes))
    ones = build.operator("Expand", one, build.put(integers_tensor(build.name(), [int(rows.sum()), 1, 1, 1])))
    counted = build.operator("CumSum", build.node("ScatterElements", ones, at, by), zero)
    lane = build.node("Range", zero, end, one)
    key = build.put(array_tensor(build.prefix + SEED, _signed(np.asarray(seed))))
    return build.operator("Add", lane, key), counted


class _Build:
    """Nodes and constants under the shortest names; equal constants are one."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.parts: dict[str, Shared] = {}
        self._constants: dict[bytes, str] = {}
        self._numbers: dict[type[np.generic], dict[bytes, str]] = {np.int32: {}, np.float32: {}}
        self._names = _short_names(prefix)

    def name(self) -> str:
        return next(self._names)

    def put(self, tensor: TensorProto) -> str:
        self.parts[tensor.name] = tensor
        return tensor.name

    def constant(self, array: NDArray[np.generic]) -> str:
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.put(array_tensor(self.name(), array))
        return self._constants[key]

    def word(self, value: int) -> str:
        """Return the name of the INT32 [1] that holds the bits of ``value``; see `put_numbers`."""
        return self._number(_signed(np.asarray(value)))

    def real(self, value: float) -> str:
        """Return the name of the float32 [1] that holds ``value``; see `put_numbers`."""
        return self._number(np.asarray(value, np.float32))

    def _number(self, value: NDArray[np.generic]) -> str:
        names = self._numbers[value.dtype.type]
        if value.tobytes() not in names:
            names[value.tobytes()] = self.name()
        return names[value.tobytes()]

    def put_numbers(self) -> None:
        """Prepend all numbers: one tensor and a Split take fewer bytes than so many scalars."""
        rest, self.parts = self.parts, {}
        for kind, names in self._numbers.items():
            if names:
                whole = self.put(array_tensor(self.name(), np.frombuffer(b"".join(names), kind)))
                self._append("Split", [whole], list(names.values()), num_outputs=len(names))
        self.parts |= rest

    def nodes(self, op_type: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: int) -> list[str]:
        names = [name] if name else [self.name() for _ in range(outputs)]
        self._append(op_type, inputs, names, **attributes)
        return names

    def _append(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> None:
        node = NodeProto(op_type=op_type, input=inputs, output=outputs)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.parts[outputs[0]] = node

    def node(self, op_type: str, *inputs: str, name: str = "", **attributes: int) -> str:
        return self.nodes(op_type, *inputs, name=name, **attributes)[0]

    def operator(self, op_type: str, first: str, second: str) -> str:
        return self.node(op_type, first, second)

    def table(self, distribution: str) -> None:
        """Append the nodes of `unit_values` under the name `TABLE`."""
        first, end, step = _ranges(distribution)
        limits = [self.constant(np.asarray(value, np.float32)) for value in (first, end, step)]
        if distribution != "xavier_normal":
            self.node("Range", *limits, name=self.prefix + TABLE)
            return
        t = self.node("Range", *limits)
        square = self.operator("Mul", t, t)
        centre, *poles = _NORMAL
        total = self.real(centre)
        for pole in poles:
            height, place = (self.real(value) for value in pole)
            total = self.operator("Add", total, self.operator("Div", height, self.operator("Sub", place, square)))
        self.node("Mul", total, t, name=self.prefix + TABLE)


def _short_names(prefix: str) -> Iterator[str]:
    """Names of one character, then of two and more; no other encoding has such names with a slash before them."""
    letters = string.ascii_letters
    fixed = (SEED, STARTS, JUMPS, SIZES, TABLE)
    yield from (prefix + letter for letter in letters + string.digits if letter not in fixed)
    for length in itertools.count(2):
        yield from (prefix + "".join(name) for name in itertools.product(letters, repeat=length))


def _signed(words: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return integers modulo 2^32 as INT32 of the same bits."""
    return np.asarray(words & 0xFFFFFFFF, np.uint32).view(np.int32)


def _lanes(distribution: str) -> int:
    """Blocks of a row."""
    return ROW // (2 * _shifts(distribution).size)


def _shifts(distribution: str) -> NDArray[np.int64]:
    """Where the fields of a word begin: [fields, 1]."""
    bits = BITS[distribution]
    return np.arange(0, 33 - bits, bits, dtype=np.int64)[:, None]


def _ranges(distribution: str) -> tuple[float, float, float]:
    return (-1, 2, 2) if distribution == "signed_constant" else (-1023 / 1024, 1, 2 / 1024)


def unit_values(distribution: str) -> NDArray[np.float32]:
    """Return the table of a distribution at scale 1: [1024] or [2]."""
    first, _, step = _ranges(distribution)
    t = (first + step * np.arange(2 ** BITS[distribution])).astype(np.float32)
    if distribution != "xavier_normal":
        return t
    centre, *poles = _NORMAL
    total = np.full_like(t, centre)
    for height, place in poles:
        total = total + np.float32(height) / (np.float32(place) - t * t)
    return total * t


def indices(seed: int, distribution: str, source: Source) -> NDArray[np.uint32]:
    """Return the index into the table for every weight of a tensor."""
    lanes = np.arange(_lanes(distribution), dtype=np.uint32)
    shifts, field = _shifts(distribution).astype(np.uint32), np.uint32(2 ** BITS[distribution] - 1)
    found = np.empty(source.rows * ROW, np.uint32)
    for start in range(0, source.rows, _ROWS_AT_ONCE):
        rows = np.arange(start, min(source.rows, start + _ROWS_AT_ONCE), dtype=np.uint32)
        counter = np.uint32(source.stream * ROWS_A_STREAM) + rows[:, None, None, None]
        words = np.concatenate(threefry((seed, 0), (lanes, counter)), axis=1)
        found[start * ROW :][: rows.size * ROW] = ((words >> shifts) & field).reshape(-1)
    return found[: source.size]
