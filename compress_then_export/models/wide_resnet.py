"""Wide residual networks with pre-activation for 32x32 images."""

from __future__ import annotations

import torch
from torch import nn


class WideBlock(nn.Module):
    """BN-ReLU-conv twice; the shortcut is the input, or a 1x1 convolution of the activated input."""

    def __init__(self, *, in_channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != width:
            self.shortcut = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to [N, width, H/stride, W/stride]."""
        active = self.relu1(self.bn1(x))
        residual = self.relu2(self.bn2(self.conv1(active)))
        residual = self.conv2(self.dropout(residual))
        result: torch.Tensor = residual + (x if self.shortcut is None else self.shortcut(active))
        return result


class WideResNet(nn.Module):
    """WRN-depth-k: three stages of 16k, 32k and 64k filters behind a convolution of 16.

    WRN-28-2 has 1,467,610 and WRN-28-10 36,479,194 parameters at ten classes. Takes images
    [N, in_channels, 32, 32] (other sizes work too) and returns logits [N, num_classes].

    Raises:
        ValueError: depth is not 6n + 4, widen is below 1, or dropout is outside [0, 1).

    Source: Zagoruyko and Komodakis 2016 (Wide Residual Networks), Table 1.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen: int,
        dropout: float = 0.0,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth={depth} must be 6n + 4, for example 16, 28 or 40")
        if widen < 1:
            raise ValueError(f"widen={widen} must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must lie in [0, 1)")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        stages = []
        channels = 16
        for width, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            blocks = []
            for index in range((depth - 4) // 6):
                step = stride if index == 0 else 1
                blocks.append(WideBlock(in_channels=channels, width=width, stride=step, dropout=dropout))
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, H, W]."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.avgpool(self.relu(self.bn(x)))
        logits: torch.Tensor = self.fc(self.flatten(x))
        return logits
