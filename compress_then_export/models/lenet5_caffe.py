"""LeNet-5 in the shape that Caffe made common, for 28x28 grey images."""

from __future__ import annotations

import torch
from torch import nn


class LeNet5Caffe(nn.Module):
    """Two 5x5 convolutions (20 and 50 filters), each max-pooled, and 800-500-classes; 431,080 parameters.

    Takes [N, in_channels, 28, 28] and returns logits [N, num_classes]. ReLU follows the convolutions too, as
    in the thesis (Wimmer), Table A.2; Caffe's own definition has none there.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, kernel_size=5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, 28, 28]."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        logits: torch.Tensor = self.fc2(x)
        return logits
