"""Check what ships: ONNX files in, verdict out, with numpy and onnxruntime alone.

    from runtime_check import bench, compare, load, verify

Nothing heavy is imported before one of these names is used, so that the command's help is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime_check.errors import CheckError
    from runtime_check.latency import bench, compare
    from runtime_check.report import render
    from runtime_check.session import load
    from runtime_check.verification import verify

__all__ = ["CheckError", "bench", "compare", "load", "render", "verify"]

_HOMES = {
    "CheckError": "runtime_check.errors",
    "bench": "runtime_check.latency",
    "compare": "runtime_check.latency",
    "load": "runtime_check.session",
    "render": "runtime_check.report",
    "verify": "runtime_check.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runtime_check' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
