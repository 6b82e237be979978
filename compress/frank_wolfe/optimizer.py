"""SFW: stochastic Frank-Wolfe as an ordinary torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from compress.checks import require
from compress.frank_wolfe.balls import L1Ball, L2Ball, LInfBall, Simplex
from compress.frank_wolfe.polytope import KSparsePolytope
from compress.frank_wolfe.set import FeasibleSet

Sets = FeasibleSet | Mapping[Tensor, FeasibleSet]

_KINDS: dict[str, type[FeasibleSet]] = {
    kind.kind: kind for kind in (KSparsePolytope, L1Ball, L2Ball, LInfBall, Simplex)
}


class SFW(Optimizer):
    """Stochastic Frank-Wolfe with momentum: every tensor stays in its convex set (001, Algorithm 1).

    With gradient g of a tensor θ in the set C:

        m ← momentum · m + (1 − momentum) · g,  from m = 0
        v ← LMO_C(m)
        θ ← θ + γ (v − θ),  γ = min(lr · ‖m‖ / ‖v − θ‖, 1) (5), or γ = lr without ``rescale``

    The step is a convex combination, so θ never leaves C and nothing is projected. With (5) a step is as long as one
    of gradient descent, whatever the size of C. The gradient of the loss in (5) is estimated by m, as in the
    published code: the norm of a batch's own gradient is mostly noise, and with it LeNet-5 diverges at the paper's
    learning rate of 1. ``momentum`` is the share of the past, as in that code; the paper's ρ is 1 − momentum. Where m
    or v − θ is zero, θ stays. There is no weight decay: C bounds the weights.

    Args:
        params: tensors, (name, tensor) pairs or parameter groups; a group may bring its own ``sets``, ``lr``,
            ``momentum`` and ``rescale``.
        sets: the set of each tensor (:func:`compress.frank_wolfe.k_sparse_sets`), or one for all of them.
        lr: α, 0 or more; in [0, 1] without ``rescale``.
        momentum: in [0, 1).
        rescale: use (5).

    Raises:
        ValueError: a setting out of range, a tensor without a set, or one that starts outside its set.
    """

    def __init__(
        self,
        params: Any,
        sets: Sets,
        *,
        lr: float = 1.0,
        momentum: float = 0.9,
        rescale: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "rescale": rescale, "sets": sets})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, each with its set; see :class:`torch.optim.Optimizer`.

        Raises:
            ValueError: see :class:`SFW`; nothing is added then.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            names = group.get("param_names", [f"tensor {i} of the group" for i in range(len(group["params"]))])
            _check(group)
            group["sets"] = [
                _set_of(tensor, name, group["sets"]) for tensor, name in zip(group["params"], names, strict=True)
            ]
        except BaseException:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every tensor that has a gradient towards a vertex of its set.

        Args:
            closure: computes the loss and its gradients anew, and returns the loss.

        Raises:
            ValueError: a scheduler raised the learning rate beyond 1 where that would leave the set.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check(group)
            for tensor, feasible in zip(group["params"], group["sets"], strict=True):
                if tensor.grad is not None:
                    self._move(tensor, feasible, group)
        return loss

    def _move(self, tensor: Tensor, feasible: FeasibleSet, group: Mapping[str, Any]) -> None:
        gradient = tensor.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise ValueError("params: one has a sparse gradient, which SFW cannot use; set sparse=False in its layer")
        mean = gradient
        if group["momentum"]:
            state = self.state[tensor]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(tensor)
            mean = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        vertex = feasible.lmo(mean)
        tensor.lerp_(vertex, step_size(tensor, mean, vertex, lr=group["lr"], rescale=group["rescale"]))

    def state_dict(self) -> dict[str, Any]:
        """As every optimizer's, with the sets as plain data."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group["sets"] = [feasible.to_json() for feasible in group["sets"]]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, with its sets.

        Raises:
            ValueError: the groups or the sets do not fit.
        """
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=False):
            if len(saved.get("sets", ())) != len(group["params"]):
                raise ValueError("state_dict: it holds no set for some tensor; it was saved by another optimizer")
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["sets"] = [_from_json(saved) for saved in group["sets"]]


def step_size(tensor: Tensor, mean: Tensor, vertex: Tensor, *, lr: float, rescale: bool) -> Tensor:
    """γ in [0, 1], a scalar: min(α ‖m‖ / ‖v − θ‖, 1) (5), or α without ``rescale``.

    It is 0 where m is zero, for then every point of the set is as good as v, and where θ = v.
    """
    norm = torch.linalg.vector_norm
    distance, length = norm(vertex - tensor), norm(mean)
    size = lr * length / distance.clamp(min=torch.finfo(distance.dtype).tiny) if rescale else distance * 0 + lr
    return torch.where((distance == 0) | (length == 0), 0.0, size.clamp(max=1.0))


def _check(group: Mapping[str, Any]) -> None:
    lr, momentum = float(group["lr"]), group["momentum"]
    require(math.isfinite(lr) and lr >= 0, "lr", lr, "a learning rate of 0 or more")
    require(
        bool(group["rescale"]) or lr <= 1,
        "lr",
        lr,
        "in [0, 1]: a longer step than to the vertex leaves the set; lower it, or use rescale=True",
    )
    require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")


def _set_of(tensor: Tensor, name: str, sets: Sets) -> FeasibleSet:
    feasible = sets if isinstance(sets, FeasibleSet) else sets.get(tensor)
    if feasible is None:
        raise ValueError(f"sets: {name}, of shape {tuple(tensor.shape)}, has none; give one for every tensor")
    outside = feasible.outside(tensor.detach())
    if outside is not None:
        raise ValueError(
            f"params: {name} starts outside its set, {outside}; enlarge its radius, or move it in with "
            "feasible.scale(tensor) or feasible.project(tensor)"
        )
    return feasible


def _from_json(saved: Mapping[str, Any]) -> FeasibleSet:
    settings: Iterable[tuple[str, Any]] = ((key, value) for key, value in saved.items() if key != "kind")
    return _KINDS[saved["kind"]](**dict(settings))
