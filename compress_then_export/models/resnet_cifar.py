"""ResNet-20, -32 and -56 for 32x32 images, with the parameter-free option-A shortcut."""

from __future__ import annotations

import torch
from torch import nn

from compress_then_export.models.option_a import OptionA


class BasicBlock(nn.Module):
    """Two 3x3 conv-BN layers beside a shortcut: [N, C, H, W] -> [N, width, H/stride, W/stride]."""

    def __init__(self, *, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.shortcut = OptionA(in_channels=in_channels, out_channels=width, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(residual(x) + shortcut(x))."""
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        result: torch.Tensor = self.relu2(residual + self.shortcut(x))
        return result


class CifarResNet(nn.Module):
    """6n+2 layers in three stages of 16, 32 and 64 filters; depth 20, 32, 44, 56, ...

    269,722 / 464,154 / 853,018 parameters at depth 20 / 32 / 56 and ten classes. Takes images
    [N, in_channels, 32, 32] (other sizes work too) and returns logits [N, num_classes].

    Raises:
        ValueError: depth is not of the form 6n + 2.

    Source: He et al. 2016 (Deep Residual Learning), section 4.2; Kaiming-normal initialisation.
    """

    def __init__(self, *, depth: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth={depth} must be 6n + 2, for example 20, 32 or 56")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, in_channels=16, width=16, stride=1)
        self.layer2 = _stage(blocks, in_channels=16, width=32, stride=2)
        self.layer3 = _stage(blocks, in_channels=32, width=64, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, H, W]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _stage(blocks: int, *, in_channels: int, width: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels=in_channels, width=width, stride=stride)
    rest = [BasicBlock(in_channels=width, width=width, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
