"""Compiles the sparse kernels where there is a C compiler; without one the package installs all the same."""

import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("runtime_check/kernels/src")

# A library for onnxruntime, not a Python module: it has no init function and links against nothing of Python's.
kernels = Extension(
    "runtime_check.kernels.sparse_kernels",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-psabi"],
    libraries=["m", "pthread"],
    optional=True,  # a failed build is a warning, and onnxruntime then runs every layer itself
)

setup(ext_modules=[kernels] if sys.platform != "win32" else [])
