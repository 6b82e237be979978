"""LeNet-300-100: two hidden linear layers for 28x28 grey images."""

from __future__ import annotations

import torch
from torch import nn


class LeNet300(nn.Module):
    """784-300-100-classes perceptron with ReLU; 266,610 parameters for ten classes.

    Takes [N, in_channels, 28, 28] and returns logits [N, num_classes].

    Source: LeCun et al. 1998; thesis (Wimmer) Table A.1.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_channels * 28 * 28, 300)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(300, 100)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] for images [N, in_channels, 28, 28]."""
        x = self.relu1(self.fc1(self.flatten(x)))
        x = self.relu2(self.fc2(x))
        logits: torch.Tensor = self.fc3(x)
        return logits
