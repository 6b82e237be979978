"""The formula with frozen coefficients: W = Φ(W₀ with the k trained values in their places).

FreezeNet (002, chapter 3) trains some coefficients of a network and leaves the others at their initial value, which
a seed gives back. So the only parameter here is β of shape [k], the trained coefficients: its gradient and what an
optimizer keeps for it have k entries too, and a ``state_dict`` holds them, their positions and the seed. W₀ is a
buffer outside the ``state_dict``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.frozen import FrozenValues
from compress.prunable import PrunableWeight, stored_weight
from compress.subspace import Formula, coefficients, detach, formula_of


class FrozenSubspace(Formula):
    """The parametrization of one weight tensor of which only some coefficients are trained.

    Casting the model rounds W₀ as it rounds any buffer, and casting back does not bring its bits back; loading a
    ``state_dict`` does.

    Args:
        mask: bool, shaped like the coefficients: the trained ones.
        source: where W₀ comes from; its shape is that of the coefficients.
        basis: see :class:`compress.subspace.Subspace`.
    """

    positions: Tensor
    frozen: Tensor

    def __init__(self, mask: Tensor, source: FrozenValues, *, basis: nn.Module | None = None) -> None:
        super().__init__()
        self.prunes = False
        self.source = source
        self.basis = basis
        self.register_buffer("positions", torch.nonzero(mask.flatten()).flatten().to(torch.int32))
        self.register_buffer("frozen", source.tensor(mask.device), persistent=False)

    @property
    def mask(self) -> Tensor:  # type: ignore[override]
        """The trained coefficients, computed anew: a bool for each is what this class is there to save."""
        mask = torch.zeros(self.frozen.numel(), dtype=torch.bool, device=self.frozen.device)
        mask[self.positions] = True
        return mask.view(self.frozen.shape)

    def acting(self, beta: Tensor) -> Tensor:
        """W₀ with the trained values β, [k], in their places; backward gathers the k gradients that they need."""
        return self.dense(beta)

    def dense(self, beta: Tensor) -> Tensor:
        """The same: all coefficients act."""
        return self.frozen.flatten().index_put((self.positions,), beta).view(self.frozen.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The trained coefficients, [k], of ``weight``; what it holds elsewhere is not kept."""
        coefficients: Tensor = weight if self.basis is None else self.basis.coefficients(weight)  # type: ignore[operator]
        return coefficients.flatten()[self.positions]

    def get_extra_state(self) -> Tensor:
        """The record of W₀ as JSON bytes; a tensor, because loops over a ``state_dict`` expect tensors."""
        return torch.frombuffer(bytearray(json.dumps(self.source.to_json()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take W₀ of a loaded ``state_dict``, whatever seed it came from, anew at the precision there is.

        Raises:
            ValueError: its shape is another.
        """
        source = FrozenValues.from_json(json.loads(bytes(state.tolist())))
        if source.shape != self.source.shape:
            raise ValueError(f"state: it was saved for a weight of shape {source.shape}, not {self.source.shape}")
        self.source = source
        self.frozen.copy_(source.tensor(self.frozen.device))  # the same source too: a cast may have rounded W₀


def freeze(
    weights: Iterable[PrunableWeight], masks: Mapping[str, Tensor], sources: Mapping[str, FrozenValues]
) -> dict[str, FrozenSubspace]:
    """Put frozen coefficients in the place of dense ones, and return the formulas by weight name.

    Args:
        weights: weights that carry the dense formula, with β as it is to begin with.
        masks: the trained coefficients, bool, broadcastable to each weight.
        sources: where the values of the others come from.
    """
    formulas = {}
    for weight in weights:
        before = formula_of(weight.module)
        basis = None if before is None else before.basis
        wanted = stored_weight(weight.module).requires_grad
        beta = coefficients(weight.module).clone()
        detach([weight])
        formula = FrozenSubspace(masks[weight.name].expand(beta.shape), sources[weight.name], basis=basis).to(
            beta.dtype
        )
        # A fresh parameter: gradients and graphs from before are of the weight's shape, not of β's.
        spatial = beta if basis is None else basis(beta)
        weight.module.weight = nn.Parameter(spatial.detach(), requires_grad=wanted)
        parametrize.register_parametrization(weight.module, "weight", formula)
        parametrized = weight.module.get_submodule("parametrizations.weight")
        parametrized.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]
        # What the basis gives back of the spatial weight is β up to rounding, or not at all if it is overcomplete.
        stored_weight(weight.module).data.copy_(beta.flatten()[formula.positions])
        formulas[weight.name] = formula
    return formulas


def _resize(parametrized: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Make room for the k of a state that is about to be loaded.

    Which weights a score chooses may differ between two processes, by the order of batches or by rounding. β stays the
    same parameter, which an optimizer holds. What does not fit together is left to ``load_state_dict`` to refuse.
    """
    beta, formula = parametrized.original, parametrized.get_submodule("0")
    assert isinstance(beta, nn.Parameter)
    assert isinstance(formula, FrozenSubspace)
    values, positions = state.get(f"{prefix}original"), state.get(f"{prefix}0.positions")
    if values is None or positions is None or values.dim() != 1 or positions.shape != values.shape:
        return
    if values.shape != beta.shape and len(values) <= formula.frozen.numel():
        beta.grad = None
        beta.data = beta.data.new_zeros(values.shape)
        formula.positions = formula.positions.new_zeros(positions.shape)
