"""The one formula: W = Φ(m ⊙ β) + (1 − m) ⊙ W₀.

Training a compressed network is training on an affine subspace of its weights (thesis 002, equations
(2.36)-(2.38)). For one weight tensor: β are the trained coefficients, m the 0/1 mask of those that live,
Φ a filter basis (``None``: the identity) and W₀ the frozen values of the others (``None``: zero). With
``straight_through`` the gradient reaches β as if m were all ones, which is the feedback of DPF (003).

The formula is a ``torch.nn.utils.parametrize`` parametrization, so it works inside any module and any
training loop, travels in the ``state_dict``, and leaves without trace through :func:`fold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.prunable import PrunableWeight, stored_weight

ModelT = TypeVar("ModelT", bound=nn.Module)


class _StraightThroughMask(torch.autograd.Function):
    """m ⊙ β forward, the identity backward."""

    @staticmethod
    def forward(beta: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, beta, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None]:
        (mask,) = ctx.saved_tensors
        return _limited(grad_outputs[0], mask), None


def _limited(gradient: Tensor, mask: Tensor) -> Tensor:
    """The feedback of removed filters, no longer than the mean gradient of the living ones.

    A removed filter gives BatchNorm a channel of variance 0, whose derivative is 1/√ε (316 times that of a
    healthy channel at the usual ε): unlimited, a few steps blow the dense filter up until it wins every
    ranking. Single weights are never alone in their channel and pass as they are.
    """
    unit = [axis for axis in range(gradient.dim()) if mask.shape[axis] != gradient.shape[axis]]
    if not unit:
        return gradient
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=unit, keepdim=True)
    limit = torch.where(mask, norms, 0.0).sum() / mask.sum().clamp(min=1)
    factor = torch.where(mask, 1.0, (limit / norms.clamp(min=1e-30)).clamp(max=1.0))
    return gradient * factor


class Subspace(nn.Module):
    """The parametrization of one weight tensor.

    Args:
        mask: bool, broadcastable to the weight: all ones but for the pruned ones. A mask of shape
            [out, 1, 1, 1] removes whole filters of a convolution.
        basis: module that maps masked coefficients to the spatial weight (Φ), ``None`` for the identity.
            It must offer ``coefficients(weight)``, the inverse used when a weight is assigned.
        frozen: module that returns W₀ when called, ``None`` for zero.
        straight_through: let the gradient reach every coefficient, also the masked ones.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        *,
        basis: nn.Module | None = None,
        frozen: nn.Module | None = None,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mask", mask.to(torch.bool))
        self.basis = basis
        self.frozen = frozen
        self.straight_through = straight_through

    def forward(self, beta: Tensor) -> Tensor:
        """The weight W for coefficients β."""
        # where, not a product: 0 * -x is -0.0 and 0 * inf is nan; a pruned weight is +0.0.
        if self.straight_through:
            live: Tensor = _StraightThroughMask.apply(beta, self.mask)  # type: ignore[no-untyped-call]
        else:
            live = torch.where(self.mask, beta, 0.0)
        weight: Tensor = live if self.basis is None else self.basis(live)
        if self.frozen is not None:
            weight = weight + torch.where(self.mask, 0.0, self.frozen())
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The coefficients β that represent ``weight`` when nothing is masked."""
        if self.basis is None:
            return weight
        coefficients: Tensor = self.basis.coefficients(weight)  # type: ignore[operator]
        return coefficients


def attach(
    weights: Iterable[PrunableWeight],
    *,
    masks: Mapping[str, Tensor] | None = None,
    straight_through: bool = False,
) -> dict[str, Subspace]:
    """Put the formula on the given weights and return it by weight name.

    Args:
        weights: what :func:`compress.prunable.prunable_weights` lists.
        masks: start mask per weight name, bool, broadcastable to the weight; all ones where missing.
        straight_through: see :class:`Subspace`.

    Raises:
        ValueError: a weight already carries the formula; nothing is attached then.
    """
    chosen = list(weights)
    for weight in chosen:
        if parametrize.is_parametrized(weight.module, "weight"):
            raise ValueError(
                f"model: {weight.name} already carries a parametrization; call fold(model) before attaching"
            )
    subspaces = {}
    for weight in chosen:
        tensor = stored_weight(weight.module)
        mask = (masks or {}).get(weight.name, torch.ones_like(tensor, dtype=torch.bool))
        subspace = Subspace(mask.to(tensor.device), straight_through=straight_through)
        parametrize.register_parametrization(weight.module, "weight", subspace)
        subspaces[weight.name] = subspace
    return subspaces


def parametrized_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, Subspace]]:
    """(weight name, module, formula) for every weight of ``model`` that carries the formula."""
    for name, module in model.named_modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        subspace = module.get_submodule("parametrizations.weight.0")
        if isinstance(subspace, Subspace):
            yield f"{name}.weight" if name else "weight", module, subspace


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """The coefficients β by weight name: for DPF the dense network w_T beside the sparse one (003)."""
    return {name: stored_weight(module).detach().clone() for name, module, _ in parametrized_weights(model)}


def fold(model: ModelT) -> ModelT:
    """Remove the formula and leave the weight W: ``model`` itself, plain again.

    Class names, ``state_dict`` keys and their order are those from before compression; parameters keep
    their identity, so an optimizer made for the attached model goes on working.
    """
    for _, module, _ in list(parametrized_weights(model)):
        order = [name for name, _ in _parameter_slots(module)]
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        parameters = module._parameters
        for name in order:  # re-registered last by torch; put every parameter back in its place
            parameters[name] = parameters.pop(name)
    return model


def _parameter_slots(module: nn.Module) -> list[tuple[str, nn.Parameter | None]]:
    """Names of a parametrized module's own parameters in the order its class registered them."""
    slots = list(module._parameters.items())
    return [("weight", None), *(slot for slot in slots if slot[0] != "weight")]
