"""The one formula: W = Φ(m ⊙ β + (1 − m) ⊙ W₀).

Training a compressed network is training on an affine subspace of its weights (thesis 002, equations
(2.36)-(2.38)). For one weight tensor: β are the trained coefficients, m the 0/1 mask of those that live,
Φ a filter basis (``None``: the identity) and W₀ the frozen coefficients of the others: zero where they are
pruned. W₀ is inside Φ because what an interspace FreezeNet freezes are coefficients (002, section 5.5.6).
With ``straight_through`` the gradient reaches β as if m were all ones, which is the feedback of DPF (003).

:class:`Subspace` keeps a dense β; :mod:`compress.frozen_subspace` keeps the trained coefficients alone and
regenerates W₀ from a seed.

The formula is a ``torch.nn.utils.parametrize`` parametrization, so it works inside any module and any
training loop, travels in the ``state_dict``, and leaves without trace through :func:`fold`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.prunable import PrunableWeight, stored_weight

ModelT = TypeVar("ModelT", bound=nn.Module)


class _StraightThroughMask(torch.autograd.Function):
    """m ⊙ β forward, the identity backward, but for dead filters before a BatchNorm (:func:`_limited`)."""

    @staticmethod
    def forward(beta: Tensor, mask: Tensor, normalised_axis: int | None) -> Tensor:
        return torch.where(mask, beta, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int | None], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.normalised_axis = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
        (mask,) = ctx.saved_tensors
        if ctx.normalised_axis is None:
            return grad_outputs[0], None, None
        return _limited(grad_outputs[0], mask, ctx.normalised_axis), None, None


def _limited(gradient: Tensor, mask: Tensor, filter_axis: int) -> Tensor:
    """The feedback of filters without a living weight, no longer than the mean gradient of the others.

    A dead filter gives BatchNorm a channel of variance 0, whose derivative is 1/√ε (316 times that of a
    healthy channel at the usual ε): unlimited, a few steps blow the dense filter up until it wins every
    ranking. Where a whole layer is dead there is nothing to compare with, and √ε itself undoes the factor.
    """
    others = [axis for axis in range(gradient.dim()) if axis != filter_axis]
    alive = mask.sum(dim=others, keepdim=True) > 0
    if bool(alive.all()):
        return gradient
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=others, keepdim=True)
    living = alive.sum()
    limit = torch.where(alive, norms, 0.0).sum() / living if living > 0 else norms * _BATCHNORM_EPS**0.5
    return gradient * torch.where(alive, 1.0, (limit / norms.clamp(min=1e-30)).clamp(max=1.0))


_BATCHNORM_EPS = 1e-5


class Formula(nn.Module, ABC):
    """The parametrization of one weight tensor, whatever its W₀.

    Attributes:
        mask: bool, broadcastable to the coefficients: which of them live.
        prunes: the others are zero; if not, they go on acting.
        basis: Φ, ``None`` for the identity.
    """

    mask: Tensor
    prunes: bool
    basis: nn.Module | None

    def forward(self, beta: Tensor) -> Tensor:
        """The weight W for coefficients β."""
        acting = self.acting(beta)
        weight: Tensor = acting if self.basis is None else self.basis(acting)
        return weight

    @abstractmethod
    def acting(self, beta: Tensor) -> Tensor:
        """m ⊙ β + (1 − m) ⊙ W₀, the coefficients as the network uses them."""

    def dense(self, beta: Tensor) -> Tensor:
        """All coefficients, those that do not live included; ``beta`` is what the optimizer holds."""
        return beta


class Subspace(Formula):
    """The formula with a dense β.

    With ``prunes`` W₀ is zero. Set it to False and W₀ is β itself, without its gradient: the masked coefficients
    act and learn nothing, but the weight decay of the optimizer shrinks them (FreezeNet-WD, 002, section 3.4.1.2).

    Args:
        mask: bool, broadcastable to the coefficients: all ones but for the pruned ones. A mask of shape
            [out, 1, 1, 1] removes whole filters of a convolution.
        basis: module that maps masked coefficients to the spatial weight (Φ), ``None`` for the identity.
            It must offer ``coefficients(weight)``, the inverse used when a weight is assigned. Several formulas
            may hold the same one (:mod:`compress.interspace`).
        straight_through: let the gradient reach every coefficient, also the masked ones.
        normalised_axis: axis of the output channels where a BatchNorm follows, so that the feedback of dead
            filters is limited; ``None`` leaves every gradient as it is.
    """

    def __init__(
        self,
        mask: Tensor,
        *,
        basis: nn.Module | None = None,
        straight_through: bool = False,
        normalised_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mask", mask.to(torch.bool))
        self.basis = basis
        self.prunes = True
        self.straight_through = straight_through
        self.normalised_axis = normalised_axis

    def acting(self, beta: Tensor) -> Tensor:
        """m ⊙ β, or with the masked ones as they are."""
        # where, not a product: 0 * -x is -0.0 and 0 * inf is nan; a pruned weight is +0.0.
        if not self.prunes:
            live = torch.where(self.mask, beta, beta.detach())
        elif self.straight_through:
            live = _StraightThroughMask.apply(beta, self.mask, self.normalised_axis)  # type: ignore[no-untyped-call]
        else:
            live = torch.where(self.mask, beta, 0.0)
        return live

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
    bases: Mapping[str, nn.Module] | None = None,
    coefficients: Mapping[str, Tensor] | None = None,
    straight_through: bool = False,
) -> dict[str, Subspace]:
    """Put the formula on the given weights and return it by weight name.

    Args:
        weights: what :func:`compress.prunable.prunable_weights` lists.
        masks: start mask per weight name, bool, broadcastable to the coefficients; all ones where missing.
        bases: Φ per weight name; the identity where missing.
        coefficients: first β per weight name; those that represent the weight there is where missing.
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
    before = spatial_weights(chosen, bases or {})
    subspaces: dict[str, Subspace] = {}
    try:
        for weight in chosen:
            tensor = stored_weight(weight.module)
            beta = (coefficients or {}).get(weight.name)
            mask = (masks or {}).get(weight.name)
            basis = (bases or {}).get(weight.name)
            if mask is None:
                first = Subspace(torch.ones(()), basis=basis).right_inverse(tensor) if beta is None else beta
                mask = torch.ones_like(first, dtype=torch.bool)
            subspace = Subspace(
                mask.to(tensor.device),
                basis=basis,
                straight_through=straight_through,
                normalised_axis=weight.filter_axis if weight.normalised else None,
            )
            if basis is not None:
                tensor.grad = None  # of another shape than β
            parametrize.register_parametrization(weight.module, "weight", subspace)
            if beta is not None:
                with torch.no_grad():
                    stored_weight(weight.module).copy_(beta)
            subspaces[weight.name] = subspace
    except BaseException:
        detach(chosen, before)
        raise
    return subspaces


Spatial = tuple[Tensor, Tensor | None]
"""A weight and its gradient."""


def spatial_weights(weights: Iterable[PrunableWeight], bases: Mapping[str, nn.Module]) -> dict[str, Spatial]:
    """The weights that get a basis, as they are before :func:`attach`, for :func:`detach`; nothing is copied."""
    stored = {weight.name: stored_weight(weight.module) for weight in weights if weight.name in bases}
    return {name: (weight.detach(), weight.grad) for name, weight in stored.items()}


def detach(weights: Iterable[PrunableWeight], before: Mapping[str, Spatial] | None = None) -> None:
    """Take the formula off again, as if :func:`attach` had not been called.

    Args:
        weights: what was to be attached.
        before: the weights that got a basis (:func:`spatial_weights`); the others are their coefficients β.
    """
    for weight in weights:
        formula = formula_of(weight.module)
        if isinstance(formula, Subspace):
            formula.mask, formula.basis = torch.ones_like(formula.mask), None
        if formula is not None:
            _fold(weight.module)
        if before and weight.name in before:
            stored = stored_weight(weight.module)
            stored.grad = None  # perhaps of another shape
            stored.data, stored.grad = before[weight.name]


def parametrized_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, Formula]]:
    """(weight name, module, formula) for every weight of ``model`` that carries the formula."""
    for name, module in model.named_modules():
        formula = formula_of(module)
        if formula is not None:
            yield f"{name}.weight" if name else "weight", module, formula


def formula_of(module: nn.Module) -> Formula | None:
    """The formula on the weight of one layer, None where it carries none."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    formula = module.get_submodule("parametrizations.weight.0")
    return formula if isinstance(formula, Formula) else None


def coefficients(module: nn.Module) -> Tensor:
    """The coefficients β of one layer, masked and frozen ones included; its weight where it carries no formula."""
    formula, beta = formula_of(module), stored_weight(module).detach()
    return beta if formula is None else formula.dense(beta)


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """The coefficients β by weight name: for DPF the dense network w_T beside the sparse one (003)."""
    return {name: coefficients(module).clone() for name, module, _ in parametrized_weights(model)}


def fold(model: ModelT) -> ModelT:
    """Remove the formula and leave the weight W: ``model`` itself, plain again.

    Class names, ``state_dict`` keys and their order are those from before compression; parameters whose β was
    of the weight's shape keep their identity, so an optimizer made for the attached model goes on working; others,
    with a basis or with frozen coefficients, need a new one.
    """
    for _, module, _ in list(parametrized_weights(model)):
        _fold(module)
    return model


def _fold(module: nn.Module) -> None:
    parameters = module._parameters
    others = list(parameters)
    shape = stored_weight(module).shape
    _leave_class_of_copies(module)
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    weight = module.weight
    assert isinstance(weight, Tensor)
    if weight.shape != shape:  # its gradient, and graphs that are still around, are of the shape of β
        parameters["weight"] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    for name in others:  # torch registered the weight last; layers have it first
        parameters[name] = parameters.pop(name)


def _leave_class_of_copies(module: nn.Module) -> None:
    """Give ``module`` its own parametrized class: torch removes the weight from the class, which copies share."""
    shared = type(module)
    namespace = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, namespace)
