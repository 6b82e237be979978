"""Opening and running ONNX files with onnxruntime, with every failure turned into one clear line."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime_check.errors import CheckError, one_line
from runtime_check.kernels import provider, report

# Everything onnxruntime would log is raised as well; its own coloured lines would only double the message.
_FATAL_ONLY = 4
_MAX_THREADS = 1024


def load(
    path: str | os.PathLike[str], threads: int | None = None, kernels: bool = True, *, spinning: bool = True
) -> ort.InferenceSession:
    """Open an ONNX file for running on the CPU, with every graph optimisation on.

    Args:
        path: the file. External data is read from the same folder only (onnxruntime refuses other places).
        threads: threads of one operator; None leaves the choice to onnxruntime (one per physical core).
        kernels: let our execution provider run the layers whose weights are sparse enough to gain by it
            (`runtime_check.kernels`); where it is not built or onnxruntime is too old, all run as without it.
        spinning: whether idle threads of the pool spin while they wait. Timing two sessions in one process
            needs False: the idle pool of one would take the cores of the other.

    Raises:
        CheckError: a missing, empty, truncated or otherwise unusable file, or a wrong argument.
    """
    file = Path(path)
    if not file.is_file():
        reason = "is a folder, not an ONNX file" if file.is_dir() else "does not exist"
        raise CheckError(f"{one_line(file)} {reason}; give the path of an .onnx file")
    try:
        empty = file.stat().st_size == 0
    except OSError as error:
        raise CheckError(f"{one_line(file)} cannot be read: {one_line(error.strerror)}") from error
    if empty:
        raise CheckError(f"{one_line(file)} is empty; write the file again")
    return _open(str(file), one_line(file), _options(threads, spinning), kernels)


def load_bytes(
    content: bytes, name: str, threads: int | None = None, kernels: bool = True, *, spinning: bool = True
) -> ort.InferenceSession:
    """Open a model that was already read (and verified); like `load`, but external data is refused.

    What a hash covers must be what runs: a file that pulls weights out of other files would not be covered,
    so those are looked for in a folder that is empty. `name` stands for the file in messages.
    """
    options = _options(threads, spinning)
    with tempfile.TemporaryDirectory(prefix="runtime-check-") as nowhere:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
        try:
            return _open(content, name, options, kernels)
        except CheckError as error:
            if "xternal data" not in str(error):
                raise
            raise CheckError(
                f"{name} keeps weights in other files, which its hash does not cover; "
                "export it again with the weights inside"
            ) from error


def run(session: ort.InferenceSession, feed: Mapping[str, Any], name: str = "the model") -> list[Any]:
    """Run once and return all outputs; CheckError naming `name` when onnxruntime cannot."""
    try:
        outputs: list[Any] = session.run(None, dict(feed))
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        raise CheckError(f"{name} cannot be run: {_reason(error)}") from error
    return outputs


def thread_count(value: object, argument: str = "threads") -> int:
    """Check a number of threads; ValueError naming `argument` unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_THREADS:
        raise CheckError(f"{argument} must be an integer between 1 and {_MAX_THREADS}, not {one_line(repr(value))}")
    return value


def measuring_time(value: object, argument: str = "seconds") -> float:
    """Check a measuring time in seconds: finite, above 0, at most an hour."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or not math.isfinite(value)
        or not 0 < value <= 3600
    ):
        raise CheckError(
            f"{argument} must be a number of seconds above 0 and at most 3600, not {one_line(repr(value))}"
        )
    return float(value)


def _options(threads: int | None, spinning: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    if threads is not None:
        options.intra_op_num_threads = thread_count(threads)
    options.inter_op_num_threads = 1
    spin = "1" if spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    options.add_session_config_entry("session.inter_op.allow_spinning", spin)
    return options


def _open(model: str | bytes, name: str, options: ort.SessionOptions, kernels: bool) -> ort.InferenceSession:
    try:
        if kernels and provider.status().available:
            return _open_with_kernels(model, options)
        return ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        raise CheckError(f"{name} is not a usable ONNX file: {_reason(error)}") from error


def _open_with_kernels(model: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    number = report.number()
    provider.add_to(options, report=str(number))
    try:
        session = ort.InferenceSession(model, sess_options=options)
    except Exception:
        report.read(number)  # forget it
        raise
    report.keep(session, number)
    return session


def _reason(error: BaseException) -> str:
    """onnxruntime's message without its code, its source paths and the file's name (we put that first)."""
    text = one_line(error, 2000)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    text = re.sub(r"/?[\w./-]*onnxruntime[\w./-]*\.(?:cc|h):\d+ ", "", text)
    if text.startswith("Protobuf parsing failed"):
        return "it is truncated or not ONNX at all (protobuf parsing failed)"
    return one_line(text or type(error).__name__)
