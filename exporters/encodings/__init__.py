"""How one weight tensor is stored in an ONNX graph: one file an encoding, `registry.py` names them all."""

from exporters.encodings.protocol import Decoded, Encoded, Encoding, GraphView
from exporters.encodings.registry import AUTO, ENCODINGS, decode

__all__ = ["AUTO", "ENCODINGS", "Decoded", "Encoded", "Encoding", "GraphView", "decode"]
