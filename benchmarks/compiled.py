"""A few lines of C, compiled on the spot."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path


def compiled(source: str, *flags: str) -> ctypes.CDLL | None:
    """The loaded library; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder) / "source.c", Path(folder) / "library.so"
        text.write_text(source)
        subprocess.run([compiler, "-O3", *flags, "-shared", "-fPIC", "-o", library, text], check=True)
        return ctypes.CDLL(str(library))
