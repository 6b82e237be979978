"""VGG-16 for 32x32 images, as the thesis uses it."""

from __future__ import annotations

import torch
from torch import nn

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions in five max-pooled stages, then linear 512-512-512-classes.

    Every convolution and both hidden linear layers have a bias, BatchNorm and ReLU; the last linear layer has
    a bias only. Takes [N, in_channels, 32, 32] and returns logits [N, num_classes].

    Source: thesis (Wimmer), Table A.3; Kaiming-normal initialisation.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for stage in _STAGES:
            for filters in stage:
                layers += [nn.Conv2d(width, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
                width = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()),
            *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()),
            nn.Linear(512, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(torch.as_tensor(module.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, 32, 32]."""
        logits: torch.Tensor = self.classifier(self.flatten(self.features(x)))
        return logits
