"""Tasks of the accuracy benchmarks: real images that need no download, and a network for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compress_then_export.data import open_data
from compress_then_export.models import build, describe

NETWORKS = {"digits": "builtin:lenet5_caffe", "patches": "builtin:resnet20"}


class Task:
    """Data of ``name``, the first ``train_size`` training images of it, and new networks for it."""

    def __init__(self, name: str, train_size: int | None = None) -> None:
        self.source = NETWORKS[name]
        spec: dict[str, Any] = {"source": name} | ({} if train_size is None else {"train_size": train_size})
        info = describe(self.source)
        self.data = open_data(spec, input_shape=info.input_shape, fixed_size=info.fixed_size)

    def network(self, seed: int) -> nn.Module:
        """With the initial weights of ``seed``."""
        torch.manual_seed(seed)
        return build(self.source, num_classes=self.data.num_classes, in_channels=self.data.input_shape[0])
