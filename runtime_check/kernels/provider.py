"""Registration with onnxruntime, once for each process, and the options that hand a session to the provider."""

from __future__ import annotations

import ctypes
import re
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnxruntime as ort

from runtime_check.errors import CheckError, one_line
from runtime_check.kernels.library import get_ep_name, get_library_path

_REGISTRATION = "compress-then-export"
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Status:
    """Whether sessions can use the kernels: the instruction set they run with, or the reason why not."""

    available: bool
    instructions: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.instructions}" if self.available else f"not available: {self.reason}"


def status() -> Status:
    """Register the library with onnxruntime where it is not, and say whether sessions can use it."""
    with _LOCK:
        return _register()


def _register() -> Status:
    try:
        if not _devices():
            ort.register_execution_provider_library(_REGISTRATION, get_library_path())
        if not _devices():
            return Status(False, None, "onnxruntime found no CPU device for them")
        return Status(True, _instructions(), None)
    except CheckError as error:
        return Status(False, None, str(error))
    except AttributeError:
        return Status(False, None, f"onnxruntime {ort.__version__} loads no execution providers; 1.23 is the oldest")
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
        return Status(False, None, one_line(text))


def _devices() -> list[Any]:
    """The CPU once for each registration: others may have registered the library too, under names of their own."""
    return [device for device in ort.get_ep_devices() if device.ep_name == get_ep_name()]


def _instructions() -> str:
    function = library().SparseKernelsInstructions
    function.restype = ctypes.c_char_p
    return str(function().decode())


@cache
def library() -> ctypes.CDLL:
    """The library onnxruntime has loaded, for the functions that are ours."""
    return ctypes.CDLL(get_library_path())


def add_to(options: ort.SessionOptions, **settings: str) -> None:
    """Hand the layers that are worth it to the kernels, in sessions opened with `options`; `status` must be good.

    Args:
        options: changed in place.
        settings: claim="all" takes every layer that can be run, sparse or not; instructions="generic" forgoes
            the processor's vector instructions, "avx2" only AVX-512; report is the number that `report.read` asks for.
            With other values opening the session raises onnxruntime's InvalidArgument, which names them.
    """
    options.add_provider_for_devices(_devices()[:1], settings)
