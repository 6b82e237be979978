"""A session of stock onnxruntime on one thread, as the benchmarks of files measure it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session(path: Path, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """Open ``path``; the graph that is executed goes to ``optimized``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
