"""Attention within shifted windows with any number of heads, in the place of torchvision's Swin layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compress.attention.protocol import Heads, OpenAttention, linear

Pair = tuple[int, int]
_LARGEST_LOGIT_SCALE = math.log(100.0)
_OTHER_REGION = -100.0


class WindowAttention(OpenAttention):
    """Windowed attention of Swin (Liu et al. 2021, section 3.2) and of its second version (2022, section 3).

    With a `table`, the position bias of every head is looked up there and products are scaled by the dimension; with
    a `bias_network`, that gives the bias from coordinates, and products are cosines times a learned scale.
    """

    relative_position_index: Tensor
    relative_coords_table: Tensor

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.window: Pair = tuple(source.window_size)
        self.shift: Pair = tuple(source.shift_size)
        self.heads, self.head_dim = source.num_heads, source.qkv.out_features // (3 * source.num_heads)
        self.attention_dropout, self.dropout = source.attention_dropout, source.dropout
        self.cosine = hasattr(source, "logit_scale")
        bias = source.qkv.bias
        if self.cosine and bias is not None:  # its keys have none, whatever stands there
            queries, _, values = bias.detach().chunk(3)
            bias = torch.cat([queries, torch.zeros_like(queries), values])
        self.qkv = linear(source.qkv.weight, bias, trained=source.qkv.weight.requires_grad)
        self.proj = linear(source.proj.weight, source.proj.bias, trained=source.proj.weight.requires_grad)
        self.register_buffer("relative_position_index", source.relative_position_index.clone())
        if self.cosine:
            self.logit_scale = _copied(source.logit_scale)
            self.register_buffer("relative_coords_table", source.relative_coords_table.clone())
            hidden, last = source.cpb_mlp[0], source.cpb_mlp[2]
            self.bias_hidden = linear(hidden.weight, hidden.bias, trained=hidden.weight.requires_grad)
            self.bias_heads = linear(last.weight, last.bias, trained=last.weight.requires_grad)
        else:
            self.relative_position_bias_table = _copied(source.relative_position_bias_table)

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """The same attention as a torchvision `ShiftedWindowAttention` or `ShiftedWindowAttentionV2`."""
        return cls(module).train(module.training)

    def outputs(self) -> Mapping[str, Heads]:
        """Queries, keys and values in one layer; in the second version also the last layer of the bias network."""
        found = {"qkv": 3 * self.channels_of_heads()}
        return {**found, "bias_heads": tuple(range(self.heads))} if self.cosine else found

    def inputs(self) -> Mapping[str, Heads]:
        """The projection back."""
        return {"proj": self.channels_of_heads()}

    def axes(self) -> Mapping[str, int]:
        """The bias table, or the scales of the second version."""
        return {"logit_scale": 0} if self.cosine else {"relative_position_bias_table": 1}

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        windows, regions = _into_windows(x, self.window, self.shift)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, self.head_dim)).movedim(-3, 0).transpose(-3, -2)
        if self.cosine:
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            scores = scores * self.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
        else:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        scores = scores + self._position_bias() + regions
        weights = F.dropout(torch.softmax(scores, dim=-1), self.attention_dropout, self.training)
        found = self.proj((weights @ v).transpose(-3, -2).flatten(-2))
        return _out_of_windows(F.dropout(found, self.dropout, self.training), x, self.window, self.shift)

    def _position_bias(self) -> Tensor:
        """[heads, positions, positions]."""
        positions = self.window[0] * self.window[1]
        if self.cosine:
            table = self.bias_heads(F.relu(self.bias_hidden(self.relative_coords_table.flatten(0, 2))))
            table = 16 * torch.sigmoid(table)
        else:
            table = self.relative_position_bias_table
        bias: Tensor = table[self.relative_position_index]
        return bias.reshape(positions, positions, self.heads).permute(2, 0, 1)


def _into_windows(x: Tensor, window: Pair, shift: Pair) -> tuple[Tensor, Tensor]:
    """Padded, shifted and split [batch, windows, positions, channels], and [windows, 1, positions, positions]:
    what is added to scores between places that the shift has brought together from opposite borders.
    """
    (height, width), (down, right) = _padded(x, window), _shift(x, window, shift)
    x = F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
    x = torch.roll(x, (-down, -right), (1, 2))
    rows, columns = (_regions(size, w, s, x) for size, w, s in ((height, window[0], down), (width, window[1], right)))
    region = _split(3 * rows[None, :, None, None] + columns[None, None, :, None], window)[0, ..., 0]
    apart = region[:, None, :, None] != region[:, None, None, :]
    return _split(x, window), apart.to(x.dtype) * _OTHER_REGION


def _out_of_windows(windows: Tensor, x: Tensor, window: Pair, shift: Pair) -> Tensor:
    """The inverse, at the size of `x`."""
    (height, width), (down, right) = _padded(x, window), _shift(x, window, shift)
    grid = windows.reshape(x.shape[0], height // window[0], width // window[1], *window, windows.shape[-1])
    whole = grid.transpose(2, 3).reshape(x.shape[0], height, width, windows.shape[-1])
    return torch.roll(whole, (down, right), (1, 2))[:, : x.shape[1], : x.shape[2]].contiguous()


# Sizes decide what they do, which torch.fx cannot follow inside; the layers around them it can.
fx.wrap("_into_windows")
fx.wrap("_out_of_windows")


def _split(x: Tensor, window: Pair) -> Tensor:
    """[batch, height, width, channels] -> [batch, windows, positions, channels]."""
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return grid.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def _padded(x: Tensor, window: Pair) -> Pair:
    return -(-x.shape[1] // window[0]) * window[0], -(-x.shape[2] // window[1]) * window[1]


def _shift(x: Tensor, window: Pair, shift: Pair) -> Pair:
    """No shift along an axis that is one window."""
    height, width = _padded(x, window)
    return 0 if window[0] >= height else shift[0], 0 if window[1] >= width else shift[1]


def _regions(size: int, window: int, shift: int, like: Tensor) -> Tensor:
    """[size] 0, 1 or 2: which places were neighbours before the shift."""
    place = torch.arange(size, device=like.device)
    return (place >= size - window).long() + (place >= size - shift).long() if shift else torch.zeros_like(place)


def _copied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
