"""What an opened attention tells of its heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Heads = tuple[int, ...]  # the head that each channel of a layer belongs to


class OpenAttention(nn.Module, ABC):
    """Attention in which every linear layer is called as a module and the heads need not fill the embedding.

    ``heads`` of ``head_dim`` channels each. A head is the channels that its projections give and that the layer behind
    reads; removing one leaves the others as they are.
    """

    heads: int
    head_dim: int

    @abstractmethod
    def outputs(self) -> Mapping[str, Heads]:
        """Name of an inner layer -> the head of every output channel, for those that make something for heads."""

    @abstractmethod
    def inputs(self) -> Mapping[str, Heads]:
        """Name of an inner layer -> the head of every input channel, for the one that reads the heads."""

    @abstractmethod
    def axes(self) -> Mapping[str, int]:
        """Name of a parameter with one slice a head -> the axis of heads."""

    def keep_heads(self, kept: Sequence[int]) -> None:
        """Keep only these heads, ascending; the inner layers must have been cut alike."""
        for name, axis in self.axes().items():
            old = self.get_parameter(name)
            index = torch.tensor(list(kept), device=old.device)
            cut = old.detach().index_select(axis, index)
            setattr(self, name, nn.Parameter(cut, requires_grad=old.requires_grad))
        self.heads = len(kept)

    def channels_of_heads(self) -> Heads:
        """The head of every channel of one projection."""
        return tuple(head for head in range(self.heads) for _ in range(self.head_dim))


def linear(weight: Tensor, bias: Tensor | None, *, trained: bool) -> nn.Linear:
    """A linear layer with copies of these weights; no random number is drawn for it."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=trained)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=trained)
    return layer
