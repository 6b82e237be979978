"""Layers for which the sparse kernels pay little or nothing, and from what sparsity on they are claimed:
python benchmarks/kernel_shapes.py

Each layer is a file of its own, one thread. The kernels are made to take it at every sparsity, and their CPU time is
measured in bursts that alternate with onnxruntime's; a number is the median of the bursts' ratios, dense over sparse.
The last column is the smallest of 50, 55, ... 95 % zeros at which the cost model claims the layer by itself.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from runtime_check import kernels
from runtime_check.kernels import provider
from runtime_check.session import load_bytes

BURST = 0.01  # seconds
STEPS = tuple(percent / 100 for percent in range(50, 100, 5))
SHOWN = (0.6, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Shape:
    """A layer and its input; `kernel` 0 is a MatMul."""

    inputs: int
    outputs: int
    image: tuple[int, ...]  # rows of a MatMul, or height and width
    kernel: int = 0
    stride: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        size = "x".join(map(str, self.image))
        if not self.kernel:
            return f"MatMul {size}x{self.inputs} . {self.inputs}x{self.outputs}"
        kind = f"{self.kernel}x{self.kernel}" + (f"/{self.stride}" if self.stride > 1 else "")
        far = f", dilation {self.dilation}" if self.dilation > 1 else ""
        return f"{kind} {self.inputs}->{self.outputs}{far}, {size}"

    def content(self, sparsity: float) -> tuple[bytes, np.ndarray]:
        """The file, and an input."""
        rng = np.random.default_rng(0)
        weights = (self.outputs, self.inputs, self.kernel, self.kernel) if self.kernel else (self.inputs, self.outputs)
        weight = (rng.standard_normal(weights) * (rng.random(weights) >= sparsity)).astype(np.float32)
        x = rng.standard_normal((1, self.inputs, *self.image) if self.kernel else (*self.image, self.inputs))
        pads = [self.kernel // 2 * self.dilation if self.stride == 1 else 0] * 4
        settings = {"pads": pads, "strides": [self.stride] * 2, "dilations": [self.dilation] * 2}
        node = helper.make_node(
            "Conv" if self.kernel else "MatMul", ["x", "w"], ["y"], **settings if self.kernel else {}
        )
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return model.SerializeToString(), x.astype(np.float32)


SHAPES = (
    Shape(512, 512, (1,)),
    Shape(2048, 1000, (1,)),
    Shape(512, 512, (4,)),
    Shape(512, 512, (64,)),
    Shape(64, 64, (256,)),
    Shape(256, 256, (33, 33), 3, dilation=2),
    Shape(256, 256, (33, 33), 3, dilation=12),
    Shape(256, 256, (17, 17), 3, dilation=18),
    Shape(64, 16, (56, 56), 8, stride=8),
    Shape(64, 64, (1, 400), 3),
    Shape(64, 64, (400, 1), 3),
    Shape(256, 256, (1, 1), 3),
    Shape(256, 256, (2, 2), 3),
    Shape(512, 512, (2, 2), 3),
    Shape(256, 256, (4, 4), 3),
)


def forced(content: bytes, with_kernels: bool) -> ort.InferenceSession:
    """A session of one thread whose layers the kernels take, whatever they cost; or a dense one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not with_kernels:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    provider.add_to(options, claim="all")
    return ort.InferenceSession(content, options)


def ratio(content: bytes, x: np.ndarray, bursts: int) -> float:
    """Dense CPU time over sparse CPU time."""
    sessions = [forced(content, with_kernels) for with_kernels in (False, True)]
    counts = []
    for session in sessions:
        session.run(None, {"x": x})
        start = time.process_time()
        session.run(None, {"x": x})
        counts.append(max(1, int(BURST / max(time.process_time() - start, 1e-6))))
    found = []
    for _ in range(bursts):
        taken = []
        for session, count in zip(sessions, counts, strict=True):
            start = time.process_time()
            for _ in range(count):
                session.run(None, {"x": x})
            taken.append((time.process_time() - start) / count)
        found.append(taken[0] / taken[1])
    return statistics.median(found)


def first_claimed(shape: Shape) -> str:
    """The smallest sparsity of STEPS at which the layer is claimed."""
    for sparsity in STEPS:
        session = load_bytes(shape.content(sparsity)[0], str(shape), threads=1)
        if any(layer.claimed for layer in kernels.layers(session)):
            return f"from {sparsity:.0%}"
    return "no"


@click.command(help=__doc__)
@click.option("--sparsity", type=click.FloatRange(0, 1), multiple=True, default=SHOWN, show_default=True)
@click.option("--bursts", type=click.IntRange(1), default=15, show_default=True, help="Of 10 ms, for each engine.")
def main(sparsity: tuple[float, ...], bursts: int) -> None:
    if not provider.status().available:
        raise click.ClickException(f"sparse kernels are {provider.status()}")
    print("| layer |" + "".join(f" {share:.0%} zeros |" for share in sparsity) + " claimed |")
    print("|---|" + "--:|" * len(sparsity) + "---|")
    for shape in SHAPES:
        ratios = "".join(f" {ratio(*shape.content(share), bursts):.2f}x |" for share in sparsity)
        print(f"| {shape} |{ratios} {first_claimed(shape)} |", flush=True)


if __name__ == "__main__":
    main()
