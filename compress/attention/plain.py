"""Multi-head attention with any number of heads, in the place of `torch.nn.MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.attention.protocol import Heads, OpenAttention, linear

_IN_PROJECTIONS = ("query", "key", "value")


class PlainAttention(OpenAttention):
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.2) of four linear layers.

    Called like `torch.nn.MultiheadAttention`, and computes the same; that one cannot hold fewer heads than fill
    its embedding. A mask with a slice for each head must be given for the heads that are left.
    """

    # torch's transformer layers look for these to choose their fused path, which reads the packed weights
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(
        self,
        *,
        query: nn.Linear,
        key: nn.Linear,
        value: nn.Linear,
        out_proj: nn.Linear,
        heads: int,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out_proj = query, key, value, out_proj
        self.heads, self.head_dim = heads, query.out_features // heads
        self.dropout, self.batch_first = dropout, batch_first

    @classmethod
    def of(cls, module: nn.MultiheadAttention) -> Self | None:
        """The same attention, or None where `module` does more than this."""
        if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
            return None
        whole = module.in_proj_weight
        own = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = [weight for weight in own if weight is not None] if whole is None else whole.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        trained = next(module.parameters()).requires_grad
        layers = [linear(weight, bias, trained=trained) for weight, bias in zip(weights, biases, strict=True)]
        out = module.out_proj
        attention = cls(
            query=layers[0],
            key=layers[1],
            value=layers[2],
            out_proj=linear(out.weight, out.bias, trained=out.weight.requires_grad),
            heads=module.num_heads,
            dropout=module.dropout,
            batch_first=module.batch_first,
        )
        return attention.train(module.training)

    @property
    def num_heads(self) -> int:
        """Heads that are left."""
        return self.heads

    @property
    def embed_dim(self) -> int:
        """Channels of the queries."""
        return self.query.in_features

    def outputs(self) -> Mapping[str, Heads]:
        """The three projections."""
        return dict.fromkeys(_IN_PROJECTIONS, self.channels_of_heads())

    def inputs(self) -> Mapping[str, Heads]:
        """The projection back."""
        return {"out_proj": self.channels_of_heads()}

    def axes(self) -> Mapping[str, int]:
        """None."""
        return {}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments, shapes, results as of `torch.nn.MultiheadAttention`; `is_causal` adds nothing to a mask."""
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask: is_causal is a hint about a mask, which must be given too")
        if not self.batch_first:
            query, key, value = (x.transpose(0, -2) for x in (query, key, value))
        q, k, v = (self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value)))
        mask = self._mask(attn_mask, key_padding_mask, q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, dim=-1), dropout)
            mixed = weights @ v
            weights = weights.mean(dim=-3) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        found = self.out_proj(mixed.transpose(-3, -2).flatten(-2))
        return (found if self.batch_first else found.transpose(0, -2)), weights

    def _split(self, x: Tensor) -> Tensor:
        """[..., T, heads · head_dim] -> [..., heads, T, head_dim]."""
        split: Tensor = x.unflatten(-1, (self.heads, self.head_dim))  # type: ignore[no-untyped-call]
        return split.transpose(-3, -2)

    def _mask(self, attention: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores [..., heads, T, S]."""
        added = None
        if attention is not None:
            added = _additive(attention, dtype)
            if added.dim() == 3:  # one for each sample and head
                added = added.reshape(-1, self.heads, *added.shape[1:])
        if padding is not None:
            of_keys = _additive(padding, dtype)[..., None, None, :]
            added = of_keys if added is None else added + of_keys
        return added


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
