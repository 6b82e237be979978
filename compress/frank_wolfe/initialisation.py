"""SFW-Init: scale every tensor so that the first Frank-Wolfe step lowers the loss most (001, Algorithm 3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from compress.checks import require, require_whole
from compress.frank_wolfe.optimizer import check_lr, step_size
from compress.frank_wolfe.set import FeasibleSet

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Rule = Literal["adam", "gradient"]
RULES: tuple[Rule, ...] = ("adam", "gradient")


@dataclass(frozen=True, kw_only=True)
class LearnedScales:
    """What SFW-Init found.

    Attributes:
        scales: ξ by parameter name; the model's tensors are multiplied by them.
        losses: loss after one Frank-Wolfe step, as measured in each iteration before the scales moved.
    """

    scales: dict[str, float]
    losses: list[float]


@torch.enable_grad()
def sfw_init(
    model: nn.Module,
    batches: Iterable[Batch],
    sets: Mapping[Tensor, FeasibleSet],
    *,
    lr: float = 1.0,
    rescale: bool = True,
    iterations: int = 390,
    scale_lr: float = 1e-3,
    minimum: float = 0.01,
    rule: Rule = "adam",
    loss: Loss = functional.cross_entropy,
) -> LearnedScales:
    """Multiply every parameter of ``model`` by a learned scale, in place (001, section 4, Algorithm 3).

    Each iteration takes one Frank-Wolfe step from the scaled tensors on a batch S and lowers the loss after it on S̃,
    of which one half is from S and one is new. The step's vertices and sizes count as constants. Then the scales are
    raised to ``minimum`` and, last, lowered until their tensors are in their sets again.

    Scales are learned on a copy, with dropout off and BatchNorm normalising by the batch; statistics and modes of
    ``model`` stay.

    Args:
        model: as initialised, each tensor in its set.
        batches: (inputs, targets) pairs, two different ones at least; read again from the start when they end.
        sets: the feasible set of each parameter; those without one keep their scale.
        lr: α of the step, as training will begin; a first step goes by the gradient itself, whatever the momentum.
        rescale: whether it is the step (5) of 001.
        iterations: T.
        scale_lr: κ.
        minimum: ε, the smallest scale, positive.
        rule: how scales descend: "adam", as the published code does and as κ = 0.001 is made for, or plain
            "gradient" descent, as Algorithm 3 prints it.
        loss: of (outputs, targets), a mean over samples.

    Raises:
        ValueError: a setting out of range, fewer than two batches, or a loss that is not finite.
    """
    require_whole("iterations", iterations, 0)
    check_lr(lr, rescale)
    require(scale_lr > 0, "scale_lr", scale_lr, "a positive learning rate")
    require(minimum > 0, "minimum", minimum, "a positive scale")
    require(rule in RULES, "rule", rule, f"one of {', '.join(RULES)}")
    named = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad and tensor in sets}
    values = {name: tensor.detach().clone() for name, tensor in named.items()}
    scales = {name: torch.ones((), device=value.device, requires_grad=True) for name, value in values.items()}
    descent: torch.optim.Optimizer
    descent = (torch.optim.Adam if rule == "adam" else torch.optim.SGD)(list(scales.values()), lr=scale_lr)
    losses = []
    feasible = {name: sets[tensor] for name, tensor in named.items()}
    twin = _twin(model)
    for now, both in _overlapping(batches, iterations, next(model.parameters()).device):
        scaled = {name: scales[name] * value for name, value in values.items()}
        after = loss_after_step(twin, scaled, now, both, feasible, lr=lr, rescale=rescale, loss=loss)
        losses.append(float(after.detach()))
        require(math.isfinite(losses[-1]), "lr", lr, f"small enough: after one step the loss is {losses[-1]}")
        descent.zero_grad()
        after.backward()  # type: ignore[no-untyped-call]
        descent.step()
        _bound(scales, values, feasible, minimum)
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.mul_(scales[name])
    return LearnedScales(scales={name: scale.item() for name, scale in scales.items()}, losses=losses)


def loss_after_step(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    now: Batch,
    both: Batch,
    sets: Mapping[str, FeasibleSet],
    *,
    lr: float,
    rescale: bool,
    loss: Loss = functional.cross_entropy,
) -> Tensor:
    """The loss on S̃ after one Frank-Wolfe step on S from ``tensors`` (001, (4)); its graph reaches ``tensors`` alone.

    Args:
        model: gives the function; its own parameters of these names are not used.
        tensors: θ by parameter name.
        now: S.
        both: S̃.
        sets: C by parameter name.
        lr: α.
        rescale: see :class:`compress.frank_wolfe.SFW`.
        loss: of (outputs, targets).
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    first = loss(functional_call(model, leaves, (now[0],)), now[1])
    gradients = torch.autograd.grad(first, list(leaves.values()), allow_unused=True)
    stepped = {}
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        if gradient is None:
            stepped[name] = tensor
            continue
        with torch.no_grad():
            vertex = sets[name].lmo(gradient)
            size = step_size(tensor, gradient, vertex, lr=lr, rescale=rescale)
        stepped[name] = tensor + size * (vertex - tensor)
    return loss(functional_call(model, stepped, (both[0],)), both[1])


@torch.no_grad()
def _bound(
    scales: Mapping[str, Tensor], values: Mapping[str, Tensor], sets: Mapping[str, FeasibleSet], minimum: float
) -> None:
    """Lower bound first, then back into the set: lines 9 and 10 of Algorithm 3."""
    for name, scale in scales.items():
        scale.clamp_(min=minimum)
        point = scale * values[name]
        length, inside = torch.linalg.vector_norm(point), torch.linalg.vector_norm(sets[name].scale(point))
        if inside < length:
            scale.mul_(inside / length)


def _twin(model: nn.Module) -> nn.Module:
    """A copy of the model to differentiate through: without dropout, BatchNorm normalising by the batch."""
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return twin


def _overlapping(batches: Iterable[Batch], count: int, device: torch.device) -> Iterator[tuple[Batch, Batch]]:
    """``count`` pairs of a batch S and S̃: S with half of its samples replaced by those of the next batch."""
    stream = _endless(batches, device)
    now = next(stream) if count else None
    for _ in range(count):
        assert now is not None
        following = next(stream)
        kept = len(now[0]) - len(now[0]) // 2
        inputs, targets = (
            torch.cat([old[:kept], new[: len(old) - kept]]) for old, new in zip(now, following, strict=True)
        )
        yield now, (inputs, targets)
        now = following


def _endless(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    read = 0
    while True:
        number = 0
        for number, (inputs, targets) in enumerate(batches, start=1):  # noqa: B007
            yield inputs.to(device), targets.to(device)
        if read and not number:
            raise ValueError(
                f"batches: they end after {read} and cannot be read again; give a list or a loader, or fewer iterations"
            )
        if number < 2:
            raise ValueError(f"batches: {number or 'none'} given; SFW-Init overlaps different ones, give two or more")
        read += number
