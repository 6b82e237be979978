"""How sparse a model is, layer by layer and in total."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from compress.bases import Basis
from compress.prunable import is_layer, stored_weight


@dataclass(frozen=True, kw_only=True)
class LayerSparsity:
    """Zeros of one convolution or linear weight."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    nonzero_parameters: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1.0 - self.nonzero_parameters / self.parameters if self.parameters else 0.0


@dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """Zeros of a model: over the weights of its layers, and over all parameters (the thesis's q and q_β)."""

    layers: tuple[LayerSparsity, ...]
    parameters: int
    nonzero_parameters: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the convolution and linear weights."""
        total = sum(layer.parameters for layer in self.layers)
        return 1.0 - sum(layer.nonzero_parameters for layer in self.layers) / total if total else 0.0

    @property
    def overall_sparsity(self) -> float:
        """Fraction of zeros among all parameters, biases and normalisation included."""
        return 1.0 - self.nonzero_parameters / self.parameters if self.parameters else 0.0


@torch.no_grad()
def sparsity_report(model: nn.Module) -> SparsityReport:
    """Count the zeros of ``model``, attached or folded alike (an attached weight counts as it is used).

    A tensor that several layers share counts once, under the name of the first. Filter bases do not count, since
    folding leaves none; what an interspace model holds is in the findings of its run (:mod:`compress.interspace`).
    """
    layers, used = [], dict[int, torch.Tensor]()
    for name, module in model.named_modules():
        if not is_layer(module) or id(stored_weight(module)) in used:
            continue
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        used[id(stored_weight(module))] = weight
        layers.append(
            LayerSparsity(
                name=f"{name}.weight" if name else "weight",
                shape=tuple(weight.shape),
                parameters=weight.numel(),
                nonzero_parameters=int(torch.count_nonzero(weight)),
            )
        )
    bases = {id(p) for module in model.modules() if isinstance(module, Basis) for p in module.parameters()}
    parameters = [p for p in model.parameters() if id(p) not in bases]
    return SparsityReport(
        layers=tuple(layers),
        parameters=sum(used.get(id(p), p).numel() for p in parameters),
        nonzero_parameters=sum(int(torch.count_nonzero(used.get(id(p), p))) for p in parameters),
    )
