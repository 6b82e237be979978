"""The plain encoding: every element, zeros included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.encodings.parts import bytes_of
from exporters.encodings.protocol import Decoded, Encoded, GraphView
from exporters.encodings.values import load, store


@dataclass(frozen=True, kw_only=True)
class Dense:
    """An initializer, as every exporter writes it."""

    name: str = "dense"
    portable: bool = True

    def encode(self, name: str, weights: NDArray[np.float32], *, values: str, prefix: str) -> Encoded:
        """Return the tensor as one initializer (and a Cast for float16 values)."""
        del prefix
        stored = store(name, weights, values)
        return Encoded(
            encoding=self.name,
            name=name,
            nodes=stored.nodes,
            initializers=stored.initializers,
            shared=stored.shared,
        )

    def decode(self, graph: GraphView, name: str) -> Decoded | None:
        """Return the initializer ``name``, or the float16 initializer that is cast to ``name``."""
        found = load(graph, name)
        if found is None:
            return None
        return Decoded(
            encoding=self.name,
            shape=tuple(found.array.shape),
            values=found.array.reshape(-1),
            positions=None,
            parts=found.parts,
            size_bytes=bytes_of(graph, found.parts),
        )


DENSE = Dense()
