"""Copies of values that share memory where the values do: what is written to one copy is seen in its views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

Key = TypeVar("Key")
_Memory = tuple[int, torch.dtype]


def copied(values: Mapping[Key, Any]) -> dict[Key, Any]:
    """Copies of all tensors in `values`.

    Tensors of one storage become views of one new tensor, with one version counter, so that autograd and whoever asks
    whether a value was written to see what they would see of the originals. Memory: of such tensors what lies between
    the first and the last of their elements.
    """
    sharing: dict[_Memory, list[Tensor]] = {}
    for leaf in tree_leaves(list(values.values())):
        if isinstance(leaf, Tensor):
            sharing.setdefault(_memory(leaf), []).append(leaf)
    wholes: dict[_Memory, Tensor] = {}

    def copy(x: Tensor) -> Tensor:
        together = sharing[_memory(x)]
        if len(together) == 1 or not x.numel():
            return x.clone()
        start = min(other.storage_offset() for other in together)
        if _memory(x) not in wholes:
            end = max(map(_end, together))
            wholes[_memory(x)] = x.as_strided((end - start,), (1,), start).clone()
        return wholes[_memory(x)].as_strided(x.shape, x.stride(), x.storage_offset() - start)

    return {key: tree_map_only(Tensor, copy, value) for key, value in values.items()}


def _memory(x: Tensor) -> _Memory:
    return x.untyped_storage().data_ptr(), x.dtype


def _end(x: Tensor) -> int:
    """Behind its last element, from the start of its storage."""
    steps = zip(x.shape, x.stride(), strict=True)
    return int(x.storage_offset()) + 1 + sum((size - 1) * stride for size, stride in steps)
