"""Where the compiled library lies, and what it is called."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from runtime_check.errors import CheckError

_FOLDER = Path(__file__).parent


def get_ep_name() -> str:
    """The execution provider's name, as `onnxruntime.get_ep_devices()` lists it once it is registered."""
    return "SparseKernelsExecutionProvider"


def get_library_path() -> str:
    """The library, for `onnxruntime.register_execution_provider_library(name, path)`.

    Raises:
        CheckError: it was not built, because no C compiler was there when the package was installed.
    """
    for suffix in EXTENSION_SUFFIXES:
        path = _FOLDER / f"sparse_kernels{suffix}"
        if path.is_file():
            return str(path)
    raise CheckError("the sparse kernels were not built; install a C compiler and then the package again")
