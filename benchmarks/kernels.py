"""Sparse kernels layer by layer, beside onnxruntime's dense ones: python benchmarks/kernels.py --sparsity 0.9

Layers of ResNet-50, VGG-16 (CIFAR) and MobileNetV2 with uniformly random masks, batch 1, one thread, each as a network
of its own. Both sessions are timed in turns in one process (`runtime_check.compare`). GFLOP/s counts non-zeros only,
two operations each; the peak is that of fused multiply-adds in registers, measured in the same run. Median time, the
95 % interval of the speed-up in brackets.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from fma_peak import fma_peak_gflops
from onnx import helper, numpy_helper

from runtime_check import compare, load
from runtime_check.environment import describe


@dataclass(frozen=True)
class Layer:
    """A convolution with half padding and ReLU; `residual` adds a second input before the ReLU."""

    network: str
    inputs: int
    outputs: int
    size: int
    kernel: int = 1
    stride: int = 1
    residual: bool = False

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    def __str__(self) -> str:
        kind = f"{self.kernel}x{self.kernel}" + (f"/{self.stride}" if self.stride > 1 else "")
        return f"{kind} {self.inputs}->{self.outputs} at {self.size}x{self.size}" + (
            " + residual" if self.residual else ""
        )


LAYERS = (
    Layer("ResNet-50", 64, 64, 56),
    Layer("ResNet-50", 64, 64, 56, 3),
    Layer("ResNet-50", 64, 256, 56, residual=True),
    Layer("ResNet-50", 256, 64, 56),
    Layer("ResNet-50", 128, 128, 56, 3, 2),
    Layer("ResNet-50", 256, 512, 56, 1, 2),
    Layer("ResNet-50", 128, 128, 28, 3),
    Layer("ResNet-50", 128, 512, 28, residual=True),
    Layer("ResNet-50", 512, 128, 28),
    Layer("ResNet-50", 256, 256, 14, 3),
    Layer("ResNet-50", 256, 1024, 14, residual=True),
    Layer("ResNet-50", 1024, 256, 14),
    Layer("ResNet-50", 512, 512, 7, 3),
    Layer("ResNet-50", 512, 2048, 7, residual=True),
    Layer("ResNet-50", 2048, 512, 7),
    Layer("VGG-16", 64, 64, 32, 3),
    Layer("VGG-16", 128, 128, 16, 3),
    Layer("VGG-16", 256, 256, 8, 3),
    Layer("VGG-16", 512, 512, 4, 3),
    Layer("VGG-16", 512, 512, 2, 3),
    Layer("MobileNetV2", 24, 144, 56),
    Layer("MobileNetV2", 192, 32, 28),
    Layer("MobileNetV2", 96, 576, 14),
    Layer("MobileNetV2", 960, 160, 7),
)


def write(layer: Layer, sparsity: float, folder: Path) -> tuple[Path, int]:
    """Write the layer's file; returns it with the number of non-zeros."""
    rng = np.random.default_rng(0)
    shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    weight = (rng.standard_normal(shape) * (rng.random(shape) >= sparsity)).astype(np.float32)
    pad = [layer.kernel // 2] * 4
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=pad, strides=[layer.stride] * 2)]
    value_info = [helper.make_tensor_value_info("x", 1, [1, layer.inputs, layer.size, layer.size])]
    if layer.residual:
        nodes.append(helper.make_node("Add", ["c", "r"], ["s"]))
        value_info.append(helper.make_tensor_value_info("r", 1, [1, layer.outputs, layer.out_size, layer.out_size]))
    nodes.append(helper.make_node("Relu", ["s" if layer.residual else "c"], ["y"]))
    out = [helper.make_tensor_value_info("y", 1, [1, layer.outputs, layer.out_size, layer.out_size])]
    graph = helper.make_graph(nodes, "layer", value_info, out, [numpy_helper.from_array(weight, "w")])
    path = folder / "layer.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path, int(np.count_nonzero(weight))


@click.command(help=__doc__)
@click.option("--sparsity", type=click.FloatRange(0, 1), multiple=True, default=(0.9,), show_default=True)
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Measuring time for each layer.")
def main(sparsity: tuple[float, ...], seconds: float) -> None:
    environment = describe()
    peak = fma_peak_gflops()
    print(f"{environment['cpu']}, onnxruntime {environment['onnxruntime']}, kernels: {environment['sparse_kernels']}")
    print(f"peak of one core: {'unknown' if peak is None else f'{peak:.0f} GFLOP/s'}\n")
    print("| network | layer | sparsity | dense ms | sparse ms | GFLOP/s | of peak | speed-up |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for share in sparsity:
        for layer in LAYERS:
            with tempfile.TemporaryDirectory() as folder:
                path, nonzeros = write(layer, share, Path(folder))
                dense, ours = (load(path, threads=1, kernels=kernels, spinning=False) for kernels in (False, True))
                found = compare(dense, ours, seconds=seconds)
            a, b = found.baseline.to_json()["median"], found.compressed.to_json()["median"]
            rate = 2e-6 * nonzeros * layer.out_size**2 / b
            low, high = found.speedup.ci95
            part = "" if peak is None else f"{rate / peak:.0%}"
            print(
                f"| {layer.network} | {layer} | {share:.0%} | {a:.3f} | {b:.3f} | {rate:.1f} | {part} | "
                f"{found.speedup.median:.2f}x [{low:.2f}, {high:.2f}] |",
                flush=True,
            )


if __name__ == "__main__":
    main()
