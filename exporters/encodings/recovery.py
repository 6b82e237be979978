"""Reading a generator back: what its constants announce is generated anew and must be what the file holds.

So nothing in a file is run or interpreted. A graph that differs in one byte from the one that `generate` writes for
its seed, streams and sizes is none of ours.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from exporters.encodings.generator import (
    BITS,
    JUMPS,
    LARGEST,
    PREFIXES,
    ROW,
    ROWS_A_STREAM,
    SEED,
    SIZES,
    STARTS,
    STREAMS,
    TABLE,
    Generator,
    Source,
    generate,
    indices,
    unit_values,
)
from exporters.encodings.protocol import GraphView
from exporters.tensors import element_count, read_array


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Where one tensor's frozen values come from, and the names of the generator's parts."""

    seed: int
    distribution: str
    source: Source
    names: frozenset[str]

    def values(self, scale: np.float32) -> NDArray[np.float32]:
        """Return all values of the tensor, flat."""
        table = unit_values(self.distribution) * scale
        return table[indices(self.seed, self.distribution, self.source)]


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A generator that a graph holds."""

    seed: int
    distribution: str
    sources: dict[str, Source]
    names: frozenset[str]


# A graph has one generator a prefix, and many tensors that ask for it.
_READ: WeakKeyDictionary[GraphView, dict[str, _Whole | None]] = WeakKeyDictionary()


def recover(graph: GraphView, *, table: str, chosen: str) -> Recovered | None:
    """Return what the indices ``chosen`` and the ``table`` of a generator stand for, None when they are not ours.

    Raises:
        ValueError: the generator is ours, but of more than `LARGEST` weights, or its constants are damaged.
    """
    prefix = next((prefix for prefix in PREFIXES if table == prefix + TABLE), None)
    if prefix is None:
        return None
    read = _READ.setdefault(graph, {})
    if prefix not in read:
        read[prefix] = _whole(graph, prefix)
    whole = read[prefix]
    if whole is None or chosen not in whole.sources:
        return None
    return Recovered(seed=whole.seed, distribution=whole.distribution, source=whole.sources[chosen], names=whole.names)


def _whole(graph: GraphView, prefix: str) -> _Whole | None:
    seed = _constant(graph, prefix + SEED, TensorProto.INT32)
    jumps = _constant(graph, prefix + JUMPS, TensorProto.INT32)
    sizes = _constant(graph, prefix + SIZES, TensorProto.INT64)
    if seed is None or jumps is None or sizes is None or seed.size != 1 or prefix + STARTS not in graph.initializers:
        return None
    word = int(seed[0]) & 0xFFFFFFFF
    sources = _sources(jumps, sizes)
    if sources is None:
        return None
    for distribution in BITS:
        generator = generate(word, distribution, sources, prefix=prefix)
        if _is_in(graph, generator):
            total = sum(source.size for source in sources)
            if total > LARGEST:
                raise ValueError(f"seeded tensors: the file regenerates {total} weights, more than {LARGEST}")
            return _Whole(
                seed=word,
                distribution=distribution,
                sources=dict(zip(generator.indices, sources, strict=True)),
                names=frozenset(generator.names),
            )
    return None


def _constant(graph: GraphView, name: str, data_type: int) -> NDArray[np.int64] | None:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type != data_type or element_count(tensor) > 2 * STREAMS:
        return None
    return read_array(tensor).astype(np.int64).reshape(-1)


def _sources(jumps: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[Source, ...] | None:
    """Return the tensors whose counters jump like this, None when there are none."""
    found: list[Source] = []
    waiting, counter = deque(sizes.tolist()), 0
    for jump in jumps.tolist():
        size = waiting.popleft() if waiting else 0
        counter += jump
        if not 0 < size <= ROW * ROWS_A_STREAM or not 0 <= counter < STREAMS * ROWS_A_STREAM or counter % ROWS_A_STREAM:
            return None
        found.append(Source(stream=counter // ROWS_A_STREAM, size=size))
        counter += found[-1].rows - 1
        if found[-1].rows * ROW > size and waiting:
            waiting.popleft()
    return tuple(found) if found and not waiting else None


def _is_in(graph: GraphView, generator: Generator) -> bool:
    """Whether the graph holds every part, byte for byte."""
    for name, part in generator.parts.items():
        held = graph.producers.get(name) if isinstance(part, NodeProto) else graph.initializers.get(name)
        if held is None or held.SerializeToString() != part.SerializeToString():
            return False
    return True
