"""The encodings by name. A new one is a file with an object of the protocol and a line here."""

from __future__ import annotations

import difflib

from exporters.encodings.coo import COO
from exporters.encodings.dense import DENSE
from exporters.encodings.gap import GAP
from exporters.encodings.packed import PACKED
from exporters.encodings.protocol import Decoded, Encoding, GraphView
from exporters.encodings.seeded import SEEDED
from exporters.encodings.values import VALUE_TYPES
from exporters.errors import ExportError

ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in (DENSE, COO, GAP, PACKED, SEEDED)}
"""Every encoding; all of them are exact."""

AUTO = "auto"
"""The choice of the smallest portable encoding for each tensor."""


def candidates(encoding: str) -> tuple[Encoding, ...]:
    """Return the encodings among which the smallest is taken; dense is always one of them.

    Raises:
        ExportError: no encoding has that name.
    """
    if encoding in (AUTO, SEEDED.name):  # tensors without a seed are stored in the smallest other encoding
        return tuple(item for item in ENCODINGS.values() if item.portable)
    if encoding == PACKED.name:  # it splits float32 values; gap stores the others
        return DENSE, GAP, PACKED
    if encoding in ENCODINGS:
        return (DENSE,) if encoding == DENSE.name else (DENSE, ENCODINGS[encoding])
    raise ExportError(unknown("encoding", encoding, [AUTO, *ENCODINGS]))


def check_values(values: str) -> None:
    """Raise ExportError when ``values`` names no type of stored values."""
    if values not in VALUE_TYPES:
        raise ExportError(unknown("values", values, list(VALUE_TYPES)))


def unknown(argument: str, given: object, known: list[str]) -> str:
    """Return the sentence for an unknown name, with the nearest known one."""
    close = difflib.get_close_matches(str(given), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{argument}: unknown name {given!r}; known are {', '.join(known)}{hint}"


def decode(graph: GraphView, name: str) -> Decoded | None:
    """Return the constant tensor ``name``, whichever encoding holds it, or None when it is not constant.

    Raises:
        ValueError: the tensor is damaged.
    """
    for encoding in ENCODINGS.values():
        decoded = encoding.decode(graph, name)
        if decoded is not None:
            return decoded
    return None
