"""Shrink every builtin and a row of torchvision's networks, and print what it does as a Markdown table.

    python benchmarks/shrink_table.py [--sparsity 0.98] [NAME ...]

40 % of the filters of every layer but the last are zeroed (no bias and no BatchNorm is touched, so constants
arrive behind them), then single weights at random. BatchNorm statistics and parameters are random.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import nn

from compress.shrink import shrink
from compress_then_export.models import build, builtin_names, describe

TORCHVISION = [
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "googlenet", "inception_v3",
    "squeezenet1_1", "resnext50_32x4d", "efficientnet_b0", "regnet_y_400mf", "mnasnet0_5", "vgg11_bn",
    "shufflenet_v2_x0_5", "convnext_tiny", "swin_t",
]  # fmt: skip


@torch.no_grad()
def damage(model: nn.Module, *, sparsity: float) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    layers = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_(0, 0.5, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.5, generator=generator)
    for layer in layers[:-1]:
        rows = layer.weight.shape[0]
        layer.weight[torch.randperm(rows, generator=generator)[: int(0.4 * rows)]] = 0
    for layer in layers:
        layer.weight *= torch.rand(layer.weight.shape, generator=generator) >= sparsity
    return model.eval()


def make(source: str) -> tuple[nn.Module, tuple[int, ...]]:
    if source.startswith("builtin:"):
        return build(source), describe(source).input_shape
    name = source.removeprefix("torchvision:")
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return build(source, args=quick), (3, 96, 96) if name == "inception_v3" else (3, 64, 64)


@torch.no_grad()
def row(source: str, sparsity: float) -> str:
    torch.manual_seed(0)
    model, shape = make(source)
    model = damage(model, sparsity=sparsity)
    masked = copy.deepcopy(model)
    start = time.perf_counter()
    plan = shrink(model, torch.randn(2, *shape))
    seconds = time.perf_counter() - start
    x = torch.randn(4, *shape)
    expected = masked(x)
    distance = (expected - model(x)).abs().max()
    relative = float(distance / expected.abs().max()) if distance > 0 else 0.0
    before, after = (sum(p.numel() for p in m.parameters()) for m in (masked, model))
    kept = f"{100 * after / before:.1f} %"
    return f"| {source} | {before:,} | {after:,} | {kept} | {relative:.1e} | {plan.difference:.1e} | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.0, help="zeros among the single weights")
    parser.add_argument("sources", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [f"builtin:{n}" for n in builtin_names()] + [f"torchvision:{n}" for n in TORCHVISION]
    print("| model | parameters | shrunk | left | difference float32 | difference float64 | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for source in options.sources or names:
        print(row(source, options.sparsity), flush=True)


if __name__ == "__main__":
    main()
