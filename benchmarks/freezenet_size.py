"""Bytes of the FreezeNet checkpoint of LeNet-5-Caffe, beside Table 3.2 of the thesis (which counts values alone).

python benchmarks/freezenet_size.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from compress.freezenet_checkpoint import save_freezenet
from compress.methods import FreezeNet
from compress_then_export.models import build

TABLE = {0.9: 170.7, 0.99: 19.1, 0.995: 10.7, 0.999: 3.9}


def main() -> None:
    print(f"{'sparsity':>8} {'Table 3.2':>10} {'values':>10} {'positions':>10} {'file':>10}   kB of 1024 bytes")
    for sparsity, published in TABLE.items():
        torch.manual_seed(0)
        model, pruner = build("builtin:lenet5_caffe", num_classes=10, in_channels=1), FreezeNet(sparsity=sparsity)
        inputs, labels = torch.randn(100, 1, 28, 28), torch.arange(100) % 10
        pruner.attach(model, [(inputs, labels)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=5e-4)
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()  # so that trained values differ from the initial ones, which take no space
        pruner.finish()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "freezenet.safetensors"
            save_freezenet(model, pruner.run.frozen, path)
            total = path.stat().st_size
            tensors = load_file(path)
        positions = sum(tensor.nbytes for name, tensor in tensors.items() if name.endswith(":gaps"))
        values = sum(tensor.nbytes for tensor in tensors.values()) - positions
        cells = "".join(f" {size / 1024:10.1f}" for size in (values, positions, total))
        print(f"{sparsity:8} {published:10}{cells}")


if __name__ == "__main__":
    main()
