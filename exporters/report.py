"""What an export did, tensor by tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """One weight tensor in the file.

    Attributes:
        name: Its name in the graph.
        shape: Its shape.
        nonzeros: Elements that are not zero.
        encoding: How it is stored.
        values: Type of its stored values; differs from the one asked for where float16 would overflow.
        size_bytes: What it takes in the file, decoding nodes included.
        dense_bytes: What its elements take as plain float32.
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    encoding: str
    values: str
    size_bytes: int
    dense_bytes: int


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The written file.

    Attributes:
        path: Where it lies.
        size_bytes: Its size.
        dense_size_bytes: The size of the same file with plain float32 tensors.
        encoding: The encoding asked for.
        values: The type of values asked for.
        tensors: One entry a weight tensor.
    """

    path: str
    size_bytes: int
    dense_size_bytes: int
    encoding: str
    values: str
    tensors: tuple[TensorReport, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than its dense form."""
        return self.dense_size_bytes / self.size_bytes

    def to_json(self) -> dict[str, object]:
        """Return the report as plain dicts, lists, strings and numbers."""
        document = asdict(self)
        document["tensors"] = [{**asdict(item), "shape": list(item.shape)} for item in self.tensors]
        return {**document, "ratio": self.ratio}
