"""Compiles the sparse kernels where there is a C compiler; without one the package installs all the same."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


class BuildKernels(build_ext):
    """Says on the terminal what pip keeps to itself: installers show no output of a build that succeeds."""

    def build_extension(self, extension: Extension) -> None:
        """Build it, and say so where that fails."""
        try:
            super().build_extension(extension)
        except Exception as error:
            text = "compress-then-export: sparse kernels were not built, all layers run at dense speed; "
            text += f"install a C compiler and then this package again ({str(error)[:120]})\n"
            try:
                Path("/dev/tty").write_text(text)
            except OSError:
                sys.stderr.write(text)  # no terminal
            raise


setup(ext_modules=[kernels] if sys.platform != "win32" else [], cmdclass={"build_ext": BuildKernels})
