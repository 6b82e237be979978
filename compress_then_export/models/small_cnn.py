"""A small convolutional network for the demo: quick to train, wide enough that pruning pays."""

from __future__ import annotations

import torch
from torch import nn


class SmallCNN(nn.Module):
    """Four conv-BN-ReLU layers of width, 2, 4 and 4 times width, global average pooling, a linear head.

    About 242,000 parameters at width 32 and ten classes. Takes images [N, in_channels, 28, 28] (other sizes
    from 4x4 work too) and returns logits [N, num_classes].

    Raises:
        ValueError: width is below 1.
    """

    def __init__(self, *, width: int = 32, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width} must be at least 1")
        self.features = nn.Sequential(
            *_layer(in_channels, width),
            nn.MaxPool2d(2),
            *_layer(width, 2 * width),
            nn.MaxPool2d(2),
            *_layer(2 * width, 4 * width),
            *_layer(4 * width, 4 * width),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, H, W]."""
        logits: torch.Tensor = self.fc(self.flatten(self.avgpool(self.features(x))))
        return logits


def _layer(in_channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
