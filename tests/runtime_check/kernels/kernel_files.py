"""One-layer networks, and the same file opened with and without the kernels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from runtime_check import kernels
from runtime_check.kernels import provider, report

ABI = Path(kernels.__file__).parent / "src" / "ort_abi.h"


def known_minors() -> tuple[int, int]:
    """The oldest and the newest release of onnxruntime that the library takes: 1.23 is 23."""
    found = re.search(r"ORT_OLDEST_MINOR = (\d+), ORT_NEWEST_MINOR = (\d+)", ABI.read_text())
    assert found
    return int(found[1]), int(found[2])


@dataclass
class Opened:
    session: ort.InferenceSession
    layers: tuple[kernels.Layer, ...]

    def __call__(self, **feed: np.ndarray) -> np.ndarray:
        return self.session.run(None, feed)[0]


def open_model(content: bytes, *, with_kernels: bool = True, threads: int = 1, **settings: str) -> Opened:
    """Open a file for comparison; keywords are provider options, and everything that can be run is claimed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not with_kernels:
        return Opened(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]), ())
    number = report.number()
    provider.add_to(options, report=str(number), **{"claim": "all", **settings})
    session = ort.InferenceSession(content, options)
    return Opened(session, report.read(number))


def executed(content: bytes, x: np.ndarray) -> list[str]:
    """What runs: onnxruntime's operators, and "ours" for each node of the kernels."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    provider.add_to(options, claim="all")
    session = ort.InferenceSession(content, options)
    session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    names = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    return ["ours" if "SparseKernels" in name else name for name in names]


def sparse(rng: np.random.Generator, *shape: int, density: float = 0.1) -> np.ndarray:
    """Normal values at random places, zeros elsewhere; their squares sum to about 1 for each output channel."""
    values = rng.standard_normal(shape) * (rng.random(shape) < density)
    return (values / np.sqrt(max(np.count_nonzero(values) / shape[0], 1))).astype(np.float32)


def network(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, list[Any]],
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> bytes:
    """A file of these nodes; `inputs` maps names to shapes."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 of the largest output."""
    assert actual.shape == expected.shape
    if expected.size:
        scale = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)
