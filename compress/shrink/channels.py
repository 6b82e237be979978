"""Which channels of which layers belong together, read off torch-pruning's dependency graph.

An *atom* is a set of channels that live and die together: an output channel of the layers whose results are
added up, the BatchNorm entries behind it, and the input channels of every layer that reads it. Atoms are the
classes of a union-find over (graph node, side, index); torch-pruning supplies the nodes, the edges and their index
mappings (concatenation, split, flatten). Its edges are followed here, each element once, because its own
`get_pruning_group` starts again at every layer and did not return within minutes on swin_t. It slices nothing here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from compress.attention import OpenAttention
from compress.shrink.graph import Port, build_graph, is_barrier
from compress.shrink.layers import channelwise_size, is_channelwise, is_layer, layer_size

Indices = NDArray[np.int64]
Element = tuple[int, str, int]  # id of the module or operation, side of it, channel index


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The atoms of a model, numbered from 0 to `count` - 1. In the arrays -1 means: belongs to no atom, must stay.

    outputs, inputs: layer name -> [channels] atom of every output and input channel.
    through: name of a channelwise module -> [channels] atom of every channel.
    heads: name of an opened attention -> [heads] atom of every head; the layers in it have their places in the others.
    locked: atom -> why it must stay, a sentence fragment.
    part: [count] connected component of every atom: the unit that is given up when it does not verify.
    summed: atoms that pass an addition of two branches, such as the stream of a residual network.
    """

    count: int
    outputs: dict[str, Indices]
    inputs: dict[str, Indices]
    through: dict[str, Indices]
    heads: dict[str, Indices]
    locked: dict[int, str]
    part: Indices
    summed: frozenset[int]


def trace_channels(model: nn.Module, inputs: tuple[Any, ...]) -> Channels:
    """Find the atoms of `model`, a throw-away copy (its parameters will require gradients, its mode becomes eval).

    Raises:
        Exception: whatever torch-pruning raises on a model that it cannot follow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = build_graph(model, inputs)
        except Exception:  # a channel shuffle, say: what lies between such places may still be followed
            graph = build_graph(model, inputs, barriers=True)
    names = {module: name for name, module in model.named_modules()}
    tied = _tied_parameters(model)
    classes = _UnionFind()
    locks: list[tuple[Element, str]] = []
    sums: list[Element] = []
    sizes = [layer_size(module) for module in model.modules() if is_layer(module)]
    limit = max((max(size.outputs, size.inputs) for size in sizes), default=0)
    for root in [module for module in graph.module2node if is_layer(module)]:
        pruner = graph.get_pruner_of_module(root)
        waiting = [(graph.module2node[root], pruner.prune_out_channels, list(range(layer_size(root).outputs)))]
        while waiting:
            node, pruning, indices = waiting.pop()
            side = _side(graph.get_pruner_of_module(node.module), pruning)
            new = [index for index in indices if classes.add((id(node.module), side, index))]
            if not new:
                continue
            if reason := _lock_reason(node.module, side, new, names, tied):
                locks += [((id(node.module), side, index), reason) for index in new]
            if _is_sum(node):
                sums += [(id(node.module), side, index) for index in new]
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(pruning):
                    continue
                target = dependency.target
                target_side = _side(graph.get_pruner_of_module(target.module), dependency.handler)
                bound = (graph.get_in_channels if target_side == "in" else graph.get_out_channels)(target) or limit
                reached: list[int] = []
                for source, index in _follow(dependency, new):
                    here = (id(node.module), side, source)
                    if not 0 <= index < bound:  # a wrong mapping; in a loop it would go on for ever
                        locks.append((here, "the dependency graph does not follow it"))
                        continue
                    classes.union(here, (id(target.module), target_side, index))
                    reached.append(index)
                waiting.append((target, dependency.handler, reached))
    return _number(model, classes, locks, sums)


def _follow(dependency: Any, indices: list[int]) -> list[tuple[int, int]]:
    """(index, index at the target) pairs along one edge of the graph."""
    moved = [tp._helpers._HybridIndex(idx=index, root_idx=index) for index in indices]
    for mapping in dependency.index_mapping:
        if mapping is not None:
            moved = mapping(moved)
    return [(pair.root_idx, pair.idx) for pair in moved]


class _UnionFind:
    def __init__(self) -> None:
        self.parent: dict[Element, Element] = {}
        self.visited: set[Element] = set()

    def add(self, key: Element) -> bool:
        """Note that the traversal has come to `key`; whether it is there for the first time."""
        if key in self.visited:
            return False
        self.visited.add(key)
        self.parent.setdefault(key, key)
        return True

    def find(self, key: Element) -> Element:
        parent = self.parent
        parent.setdefault(key, key)
        root = key
        while parent[root] != root:
            root = parent[root]
        while parent[key] != root:
            parent[key], key = root, parent[key]
        return root

    def union(self, a: Element, b: Element) -> None:
        root_a, root_b = self.find(a), self.find(b)
        if root_a != root_b:
            self.parent[root_b] = root_a


def _is_depthwise(module: nn.Module) -> bool:
    if not is_layer(module):
        return False
    size = layer_size(module)
    return size.groups == size.outputs > 1


def _side(pruner: Any, handler: Callable[..., Any]) -> str:
    if pruner.prune_out_channels == pruner.prune_in_channels:
        return "both"
    return "out" if handler == pruner.prune_out_channels else "in"


def _is_sum(node: Any) -> bool:
    added = isinstance(node.module, tp.ops._ElementWiseOp) and node.module._grad_fn.startswith("AddBackward")
    return added and len(node.inputs) > 1


def _number(model: nn.Module, classes: _UnionFind, locks: list[tuple[Element, str]], sums: list[Element]) -> Channels:
    numbers: dict[Element, int] = {}
    outputs: dict[str, Indices] = {}
    inputs: dict[str, Indices] = {}
    through: dict[str, Indices] = {}

    def atoms(module: nn.Module, side: str, size: int) -> Indices:
        row = np.full(size, -1, dtype=np.int64)
        for index in range(size):
            if (key := (id(module), side, index)) in classes.parent:
                row[index] = numbers.setdefault(classes.find(key), len(numbers))
        return row

    for name, module in model.named_modules():
        if is_layer(module):
            size = layer_size(module)
            depthwise = _is_depthwise(module)
            outputs[name] = atoms(module, "both" if depthwise else "out", size.outputs)
            through_it = depthwise and size.inputs == size.outputs
            inputs[name] = outputs[name] if through_it else atoms(module, "in", size.inputs)
        elif is_channelwise(module):
            through[name] = atoms(module, "both", channelwise_size(module))
    heads: dict[str, Indices] = {}
    count = len(numbers)
    for name, module in model.named_modules():
        if isinstance(module, OpenAttention):
            row = heads[name] = np.arange(count, count + module.heads)
            count += module.heads
            outputs.update({f"{name}.{layer}": row[list(of)] for layer, of in module.outputs().items()})
            inputs.update({f"{name}.{layer}": row[list(of)] for layer, of in module.inputs().items()})
    locked = {numbers[key]: reason for here, reason in locks if (key := classes.find(here)) in numbers}
    grouped = [name for name in outputs if len(outputs[name]) and layer_size(model.get_submodule(name)).groups > 1]
    part = _parts(count, [*outputs.values(), *inputs.values(), *through.values()])
    for name in grouped:  # its inputs and outputs must be cut in step
        first, second = outputs[name][outputs[name] >= 0], inputs[name][inputs[name] >= 0]
        if len(first) and len(second):
            part[part == part[second[0]]] = part[first[0]]
    summed = frozenset(numbers[key] for here in sums if (key := classes.find(here)) in numbers)
    return Channels(
        count=count,
        outputs=outputs,
        inputs=inputs,
        through=through,
        heads=heads,
        locked=locked,
        part=part,
        summed=summed,
    )


def _parts(count: int, rows: list[Indices]) -> Indices:
    """Connected components of the atoms, two of which are linked when they are channels of one module side."""
    part = np.arange(count)
    for row in rows:
        members = np.unique(part[row[row >= 0]])
        if len(members) > 1:
            part[np.isin(part, members)] = members[0]
    return part


def _lock_reason(module: Any, side: str, indices: list[int], names: dict[nn.Module, str], tied: dict[int, str]) -> str:
    """Why a channel that passes through this graph node must stay, or nothing."""
    if isinstance(module, nn.Parameter):
        return "it meets a parameter that belongs to no layer"
    name = names.get(module, "")
    if isinstance(module, Port):
        return "the model's input is added to it"
    if is_barrier(module):
        return "it passes a channel shuffle, attention or the like, which cannot be followed"
    if isinstance(module, tp.ops._OutputOp):
        return "it reaches the model's output"
    if is_layer(module):
        size = layer_size(module)
        if side == "both" and size.inputs != size.outputs:
            return f"{name} has several input channels for each output channel"
        limit = size.inputs if side == "in" else size.outputs
        if indices and max(indices) >= limit:
            return f"the dependency graph does not follow the channels into {name}"
    elif is_channelwise(module):
        if indices and max(indices) >= channelwise_size(module):
            return f"the dependency graph does not follow the channels into {name}"
    elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
        return f"{name} normalises across channels"
    elif name and next(module.parameters(recurse=False), None) is not None and not isinstance(module, nn.PReLU):
        return f"{name} is a {type(module).__name__}"
    for parameter in module.parameters(recurse=False):
        if id(parameter) in tied:
            return f"{tied[id(parameter)]} share a parameter"
    return ""


def _tied_parameters(model: nn.Module) -> dict[int, str]:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {key: " and ".join(found) for key, found in owners.items() if len(found) > 1}
