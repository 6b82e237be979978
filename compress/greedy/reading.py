"""What the first layer behind the cut computes of a step towards any unit, without running it for each.

Consumers are linear in the shares: of (1 − γ) a + γ e_i one computes what it does of (1 − γ) a, and γ N times what the
columns of unit i alone add. The former is common to all units; the latter is a part M / inputs of the layer's work.
Consumers further behind may read what the first one changed, so they run as they are, and so does a first one that is
more than its formula: with hooks of its own, or a subclass that computes something else.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from compress.shrink.layers import channel_dim

_CONVOLUTIONS = (nn.Conv1d._conv_forward, nn.Conv2d._conv_forward, nn.Conv3d._conv_forward)


class Reading:
    """One consumer on one batch. Memory: one of its outputs, three while `plus` works.

    Args:
        module: a convolution (not transposed, one convolution group) or linear layer that `is_plain`, gated at
            (1 − γ) a now.
        columns: [N, M] the input channels of each unit.
        x: its input before the gates.
    """

    def __init__(self, module: nn.Module, columns: NDArray[np.int64], x: Tensor) -> None:
        self.module, self.columns, self.x = module, columns, x
        self.common: Tensor = module(x)

    def plus(self, unit: int, factor: float) -> Tensor:
        """The output with `factor` = γ N more of one unit."""
        columns = torch.from_numpy(self.columns[unit]).to(self.x.device)
        x = self.x.index_select(channel_dim(self.module), columns)
        if isinstance(self.module, nn.Linear):
            added = functional.linear(x, self.module.weight[:, columns])
        else:
            assert isinstance(self.module, _ConvNd)
            added = self.module._conv_forward(x, self.module.weight[:, columns], None)
        return torch.add(self.common, added, alpha=factor)


def is_plain(module: nn.Module) -> bool:
    """Whether a gated layer of stock `forward` computes its formula and nothing else: no hook but the gate."""
    if module._forward_hooks or len(module._forward_pre_hooks) > 1 or type(module).__call__ is not nn.Module.__call__:
        return False
    return not isinstance(module, _ConvNd) or type(module)._conv_forward in _CONVOLUTIONS
