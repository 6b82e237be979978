"""The parameter-free shortcut of CIFAR ResNets (option A), in a form that survives channel removal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class OptionA(nn.Module):
    """A fixed channel map behind spatial subsampling: output channel j copies input channel ``source[j]``.

    As a fresh shortcut it takes every ``stride``-th pixel and pads the missing channels with zeros, half of
    them in front and half behind (He et al. 2016, section 4.2, option A). It acts like a fixed 1x1
    convolution with stride whose rows are unit vectors or zero, so channels can be removed on either
    side with `select`.

    Attributes:
        in_channels, out_channels: channel counts of the input and the output.
        stride: spatial step, in pixels.
        source: for each output channel the input channel that it copies, or -1 for a channel of zeros.
    """

    def __init__(self, *, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(
                f"out_channels={out_channels} is below in_channels={in_channels}: option A only adds channels"
            )
        front = (out_channels - in_channels) // 2
        back = out_channels - in_channels - front
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.source: tuple[int, ...] = (-1,) * front + tuple(range(in_channels)) + (-1,) * back
        self._padding: tuple[int, int] | None = (front, back)
        self.register_buffer("_gather", None, persistent=False)
        self._gather: torch.Tensor | None

    def select(self, out_keep: Sequence[int], in_keep: Sequence[int]) -> None:
        """Keep only these output and input channels, in this order (indices into the present channels).

        An output channel whose input channel is removed becomes zero.

        Raises:
            ValueError: an index is out of range or twice in the list, or a list is empty.
        """
        outputs = _checked(out_keep, self.out_channels, "out_keep")
        inputs = _checked(in_keep, self.in_channels, "in_keep")
        position = {channel: index for index, channel in enumerate(inputs)}
        self.source = tuple(position.get(self.source[channel], -1) for channel in outputs)
        self.in_channels = len(inputs)
        self.out_channels = len(outputs)
        self._padding = self._plain_padding()
        self._gather = None
        if self._padding is None:
            # Index in_channels is the zero channel that forward appends.
            gather = [index if index >= 0 else self.in_channels for index in self.source]
            self._gather = torch.tensor(gather, dtype=torch.int64)

    def _plain_padding(self) -> tuple[int, int] | None:
        """Zero channels in front and behind when all inputs pass through in order; None for any other map."""
        front = next((j for j, index in enumerate(self.source) if index >= 0), 0)
        back = self.out_channels - self.in_channels - front
        plain = (-1,) * front + tuple(range(self.in_channels)) + (-1,) * max(back, 0)
        return (front, back) if plain == self.source else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        x = x[:, :, :: self.stride, :: self.stride]
        if self._padding is not None:
            return F.pad(x, (0, 0, 0, 0, *self._padding)) if any(self._padding) else x
        gather = self._gather
        assert gather is not None
        if gather.device != x.device:  # `select` after the model was moved leaves the index on the CPU
            gather = gather.to(x.device)
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, gather)

    def extra_repr(self) -> str:
        """Return the settings shown by print(model)."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


def _checked(keep: Sequence[int], channels: int, name: str) -> list[int]:
    indices = [int(index) for index in keep]
    if not indices:
        raise ValueError(f"{name} is empty: at least one channel must stay")
    if len(set(indices)) != len(indices):
        raise ValueError(f"{name} names a channel twice: {indices}")
    if min(indices) < 0 or max(indices) >= channels:
        raise ValueError(f"{name} must lie in 0..{channels - 1}, got {min(indices)}..{max(indices)}")
    return indices
