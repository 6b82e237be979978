"""SFW: stochastic Frank-Wolfe as an ordinary torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
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

        m ← momentum · m + (1 − momentum) · g,  at first m = g
        v ← LMO_C(m)
        θ ← θ + γ (v − θ),  γ = min(lr · ‖m‖ / ‖v − θ‖, 1) (5), or γ = lr without ``rescale``

    The step is a convex combination, so θ never leaves C and nothing is projected. With (5) a step is as long as one
    of gradient descent, whatever the size of C. The gradient of the loss in (5) is estimated by m, as in the
    published code: the norm of a batch's own gradient is mostly noise, and with it LeNet-5 diverges at the paper's
    learning rate of 1. ``momentum`` is the share of the past, as in that code; the paper's ρ is 1 − momentum. The mean
    begins with the first gradient itself, as there (Algorithm 1 leaves its start open): the first step is as long as
    one of gradient descent, too. Where m is zero, θ stays. There is no weight decay: C bounds the weights.

    Args:
        params: tensors, (name, tensor) pairs or parameter groups; a group may bring its own ``sets``, ``lr``,
            ``momentum`` and ``rescale``.
        sets: the set of each tensor (:func:`compress.frank_wolfe.k_sparse_sets`), or one for all of them.
        lr: α, 0 or more; in [0, 1] without ``rescale``.
        momentum: in [0, 1).
        rescale: use (5).

    Raises:
        ValueError: a setting out of range, weight decay, or a tensor without a set, outside it or not of real numbers.
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
            _check(group)
            named = zip(_names(group, len(self.param_groups) - 1), group["params"], strict=True)
            group["sets"] = [_set_of(tensor, name, group["sets"]) for name, tensor in named]
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
            ValueError: a scheduler raised the learning rate beyond 1 where that would leave the set, or a gradient is
                sparse or not finite; nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            _check(group)
            _check_gradients(group["params"], _names(group, number))
        for group in self.param_groups:
            for tensor, feasible in zip(group["params"], group["sets"], strict=True):
                if tensor.grad is not None:
                    self._move(tensor, tensor.grad, feasible, group)
        return loss

    def _move(self, tensor: Tensor, gradient: Tensor, feasible: FeasibleSet, group: Mapping[str, Any]) -> None:
        mean, momentum = gradient, group["momentum"]
        if momentum:
            state = self.state[tensor]
            if "momentum" in state:
                state["momentum"].mul_(momentum).add_(gradient, alpha=1 - momentum)
            else:
                state["momentum"] = gradient.clone()
            mean = state["momentum"]
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
            ValueError: the groups or the sets do not fit, or a tensor, as it is now, is outside its set; the optimizer
                is as it was.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"state_dict: it has {len(groups)} parameter groups, this optimizer has {len(self.param_groups)}; "
                "give it the same ones"
            )
        sets = []
        for number, (group, saved) in enumerate(zip(self.param_groups, groups, strict=True)):
            if len(saved.get("sets", ())) != len(group["params"]):
                raise ValueError("state_dict: it holds no set for some tensor; it was saved by another optimizer")
            sets.append([_from_json(feasible) for feasible in saved["sets"]])
            for name, tensor, feasible in zip(_names(group, number), group["params"], sets[-1], strict=True):
                if outside := feasible.outside(tensor.detach()):
                    raise ValueError(
                        f"state_dict: {name} is outside the set that was saved, {outside}; load the model's state first"
                    )
        super().load_state_dict(state_dict)
        for group, its in zip(self.param_groups, sets, strict=True):
            group["sets"] = its


def step_size(tensor: Tensor, mean: Tensor, vertex: Tensor, *, lr: float, rescale: bool) -> Tensor:
    """γ in [0, 1], a scalar: min(α ‖m‖ / ‖v − θ‖, 1) (5), or α without ``rescale``.

    It is 0 where m is zero, for then every point of the set is as good as v.
    """
    if not rescale:
        return torch.where((mean != 0).any(), lr, 0.0).to(tensor.dtype)
    wide = torch.promote_types(tensor.dtype, torch.float32)  # norms of float16 overflow early
    length, distance = (torch.linalg.vector_norm(way, dtype=wide) for way in (mean, vertex - tensor))
    size: Tensor = lr * length / distance.clamp(min=torch.finfo(wide).tiny)
    return size.clamp(max=1.0).to(tensor.dtype)


def check_lr(lr: object, rescale: bool) -> None:
    """Raise ValueError where steps of this learning rate would be none or leave the set."""
    value = _number("lr", lr)
    require(math.isfinite(value) and value >= 0, "lr", value, "a learning rate of 0 or more")
    require(
        bool(rescale) or value <= 1,
        "lr",
        value,
        "in [0, 1]: a longer step than to the vertex leaves the set; lower it, or use rescale=True",
    )


def _check(group: Mapping[str, Any]) -> None:
    check_lr(group["lr"], group["rescale"])
    require(0 <= _number("momentum", group["momentum"]) < 1, "momentum", group["momentum"], "in [0, 1)")
    decay = group.get("weight_decay")
    require(not decay, "weight_decay", decay, "of use to SFW, whose sets bound the weights; leave it out")


def _number(argument: str, value: object) -> float:
    require(isinstance(value, Real | Tensor) and not isinstance(value, bool), argument, value, "a number")
    return float(value)  # type: ignore[arg-type]


def _names(group: Mapping[str, Any], number: int) -> Sequence[str]:
    names: Sequence[str] = group.get(
        "param_names", [f"tensor {i} of group {number}" for i in range(len(group["params"]))]
    )
    return names


def _check_gradients(tensors: Sequence[Tensor], names: Sequence[str]) -> None:
    gradients = {name: tensor.grad for name, tensor in zip(names, tensors, strict=True) if tensor.grad is not None}
    for name, gradient in gradients.items():
        if gradient.is_sparse:
            raise ValueError(
                f"params: {name} has a sparse gradient, which SFW cannot use; set sparse=False in its layer"
            )
    finite = [gradient.isfinite().all() for gradient in gradients.values()]  # all asked for before the first answer
    for name, good in zip(gradients, finite, strict=True):
        if not good:
            raise ValueError(
                f"params: the gradient of {name} is not finite, and no tensor was moved; leave out the step, clip "
                "gradients, or lower lr"
            )


def _set_of(tensor: Tensor, name: str, sets: Sets) -> FeasibleSet:
    if not isinstance(sets, FeasibleSet | Mapping):
        raise ValueError(f"sets: {sets!r} is neither a feasible set nor a mapping of tensors to theirs")
    feasible = sets if isinstance(sets, FeasibleSet) else sets.get(tensor)
    if feasible is None:
        raise ValueError(f"sets: {name}, of shape {tuple(tensor.shape)}, has none; give one for every tensor")
    require(isinstance(feasible, FeasibleSet), "sets", feasible, f"a feasible set for {name}, such as L2Ball(radius=1)")
    if not tensor.is_floating_point():
        raise ValueError(f"params: {name} is of {tensor.dtype}; SFW trains real floating-point tensors, leave it out")
    outside = feasible.outside(tensor.detach())
    if outside is not None:
        raise ValueError(
            f"params: {name} starts outside its set, {outside}; enlarge its radius, or move it in with "
            "feasible.scale(tensor) or feasible.project(tensor)"
        )
    return feasible


def _from_json(saved: Mapping[str, Any]) -> FeasibleSet:
    kind = saved.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"state_dict: it holds a set of kind {kind!r}, which is not one of {', '.join(_KINDS)}")
    try:
        return _KINDS[kind](**{key: value for key, value in saved.items() if key != "kind"})
    except TypeError:
        raise ValueError(f"state_dict: {dict(saved)} does not describe a set of its kind; it is damaged") from None
