"""Plain torch model in, ONNX files out: export, inspect, bundle."""

from exporters.errors import ExportError
from exporters.export import export
from exporters.report import ExportReport, TensorReport

__all__ = ["ExportError", "ExportReport", "TensorReport", "export"]
