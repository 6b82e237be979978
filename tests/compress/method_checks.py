"""The network that the tests of methods share."""

import torch
from torch import nn


def network() -> nn.Module:
    """Two convolutions, a BatchNorm and two linear layers for 3x8x8 inputs and 5 classes; always the same weights."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 16, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether both models hold the same bits under the same names in the same order."""
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)
