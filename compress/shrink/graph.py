"""torch-pruning's dependency graph of a model, fed so that it sees inputs, outputs and fixed channel maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from compress.attention import OpenAttention
from compress.shrink.layers import is_fixed_map, layer_size


class _FixedMapPruner(tp.BasePruningFunc):  # type: ignore[misc]
    """Tells torch-pruning that outputs and inputs of a fixed map are different channels, as for a convolution."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer_size(layer).outputs

    def get_in_channels(self, layer: nn.Module) -> int:
        return layer_size(layer).inputs


class _Opaque(torch.autograd.Function):
    """One graph node for whatever a fixed map computes inside, so that no index mapping is guessed for its parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        return compute(x).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("this graph is only read, never differentiated")


class _Barrier(torch.autograd.Function):
    """The node of an operation through which no index mapping follows channels; `is_barrier` finds it again."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], *tensors: Tensor) -> Any:
        return tree_map_only(Tensor, torch.clone, compute(*tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("this graph is only read, never differentiated")


def _functions(*names: str) -> frozenset[Any]:
    return frozenset(getattr(owner, name) for name in names for owner in (torch, Tensor) if hasattr(owner, name))


class _Barriers(TorchFunctionMode):
    """Within the block a channel shuffle, and whatever joins or splits channels around it, is a barrier."""

    # barriers where there are five dimensions and more: with four, channels keep their place
    _moves = _functions("reshape", "view", "transpose", "permute", "movedim", "swapaxes", "flatten", "unflatten")
    _splits = _functions("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
    _joins = _functions("cat", "concat", "concatenate", "stack", "hstack")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not args:
            return func(*args, **kwargs)
        if func in self._joins:
            return _Barrier.apply(lambda *tensors: func(tensors, *args[1:], **kwargs), *args[0])  # type: ignore[no-untyped-call]
        moved = func(*args, **kwargs)
        if func in self._splits or (func in self._moves and max(args[0].dim(), moved.dim()) > 4):
            return _Barrier.apply(lambda x: func(x, *args[1:], **kwargs), args[0])  # type: ignore[no-untyped-call]
        return moved


def is_barrier(module: object) -> bool:
    """Whether a node of the graph stands for an operation through which channels cannot be followed."""
    return isinstance(module, tp.ops._ElementWiseOp) and module._grad_fn.startswith(_Barrier.__name__)


class Port(nn.Module):
    """An input of the model as a graph node of its own: torch-pruning does not see tensors without gradient."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.width = x.shape[-1] if x.dim() == 3 else x.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """The same values, with a gradient to follow."""
        return _opaque_forward(lambda x: x)(x.detach().clone().requires_grad_())


class _PortPruner(_FixedMapPruner):
    def get_out_channels(self, layer: nn.Module) -> int:
        return int(layer.width)  # type: ignore[arg-type]

    get_in_channels = get_out_channels


class _Ported(nn.Module):
    def __init__(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        super().__init__()
        self.model = model
        visible = [isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 2 for x in inputs]
        self.ports = nn.ModuleList(Port(x) if seen else nn.Identity() for x, seen in zip(inputs, visible, strict=True))

    def forward(self, *inputs: Any) -> Any:
        return self.model(*(port(x) for port, x in zip(self.ports, inputs, strict=True)))


def _opaque_forward(compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y: Tensor = _Opaque.apply(x, compute)  # type: ignore[no-untyped-call]
        return y

    return forward


def _barrier_forward(compute: Callable[..., Any]) -> Callable[..., Any]:
    """An attention as one barrier: what goes on between its layers is known without the graph."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        found = compute(*args, **kwargs)
        seen, *others = found if isinstance(found, tuple) else (found,)
        seen = _Barrier.apply(lambda *_: seen, *[x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)])  # type: ignore[no-untyped-call]
        return (seen, *others) if isinstance(found, tuple) else seen

    return forward


def build_graph(model: nn.Module, inputs: tuple[Any, ...], *, barriers: bool = False) -> Any:
    """torch-pruning's dependency graph of `model`, whose parameters will require gradients.

    Its nodes are the model's modules, a `Port` for each input, and the operations between them. With `barriers` it
    does not try to follow channels through channel shuffles, concatenations and splits: what lies between is followed.
    """
    maps: list[Any] = [module for module in model.modules() if is_fixed_map(module)]
    for module in maps:
        module.forward = _opaque_forward(module.forward)
    for module in model.modules():
        if isinstance(module, OpenAttention):
            module.forward = _barrier_forward(module.forward)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    pruners: dict[Any, Any] = {Port: _PortPruner()}
    for module in maps:
        pruners[type(module)] = _FixedMapPruner()

    def forward(ported: nn.Module, x: tuple[Any, ...]) -> Any:
        with _Barriers() if barriers else nullcontext():
            return ported(*x)

    graph = tp.DependencyGraph()
    graph.build_dependency(
        _Ported(model, inputs),
        inputs,
        forward_fn=forward,
        output_transform=lambda out: list(_fresh_outputs(out)),
        customized_pruners=pruners,
        verbose=False,
    )
    return graph


def _fresh_outputs(out: Any) -> Iterator[Tensor]:
    """Every output behind a node of its own: torch-pruning overlooks an output that is also used inside."""
    for leaf in tree_leaves(out):
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
            yield leaf * 1
