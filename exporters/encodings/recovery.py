"""Reading a generator back: what its constants announce is generated anew and must be what the file holds.

So nothing in a file is run or interpreted. A graph that differs in one byte from the one that `generate` writes for
its seed, streams and sizes is none of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from exporters.encodings.generator import (
    BITS,
    JUMPS,
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


def recover(graph: GraphView, *, table: str, chosen: str) -> Recovered | None:
    """Return what the indices ``chosen`` and the ``table`` of a generator stand for, None when they are not ours."""
    prefix = next((prefix for prefix in PREFIXES if table == prefix + TABLE), None)
    if prefix is None:
        return None
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
        generator = _generate(word, distribution, sources, prefix)
        if chosen in generator.indices and _is_in(graph, generator):
            source = sources[generator.indices.index(chosen)]
            return Recovered(seed=word, distribution=distribution, source=source, names=frozenset(generator.names))
    return None


def _constant(graph: GraphView, name: str, data_type: int) -> NDArray[np.int64] | None:
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.data_type != data_type or element_count(tensor) > 2 * STREAMS:
        return None
    return read_array(tensor).astype(np.int64).reshape(-1)


def _sources(jumps: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[Source, ...] | None:
    """Return the tensors whose counters jump like this, None when there are none."""
    found: list[Source] = []
    waiting, counter = sizes.tolist(), 0
    for jump in jumps.tolist():
        size = waiting.pop(0) if waiting else 0
        counter += jump
        if not 0 < size <= ROW * ROWS_A_STREAM or not 0 <= counter < STREAMS * ROWS_A_STREAM or counter % ROWS_A_STREAM:
            return None
        found.append(Source(stream=counter // ROWS_A_STREAM, size=size))
        counter += found[-1].rows - 1
        if found[-1].rows * ROW > size and waiting:
            waiting.pop(0)
    return tuple(found) if found and not waiting else None


@lru_cache(maxsize=8)
def _generate(seed: int, distribution: str, sources: tuple[Source, ...], prefix: str) -> Generator:
    return generate(seed, distribution, sources, prefix=prefix)


def _is_in(graph: GraphView, generator: Generator) -> bool:
    """Whether the graph holds every part, byte for byte."""
    for name, part in generator.parts.items():
        held = graph.producers.get(name) if isinstance(part, NodeProto) else graph.initializers.get(name)
        if held is None or held.SerializeToString() != part.SerializeToString():
            return False
    return True
