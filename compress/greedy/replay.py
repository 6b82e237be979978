"""The layers after a cut, run again and again from activations that were computed once.

The model is traced to a `torch.fx` graph. Nodes before the cut run once per batch; what later nodes still read of
them is kept, exactly that, which hooks on modules could not know; a run starts at the cut. Weights are looked up in
the model at every run, so scaling them in place is seen. Groups come in the order of their first consumers, so the
cut only moves forward, and thinning all layers costs one pass of the prefix in all. A model that cannot be traced,
or whose graph computes something else, runs whole every time.

Memory: for every batch its live activations at the cut (a feature map or two for a residual network).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from compress.greedy.copies import copied
from compress.shrink.layers import is_channelwise, is_layer

log = logging.getLogger(__name__)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers are nodes of the graph, whatever Python they consist of."""
        return is_layer(m) or is_channelwise(m) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One input: further parameters have their defaults, on which code may branch."""
        return root_fn, [self.root, self.create_proxy("placeholder", "inputs", (), {})]


class Replay:
    """A model in eval mode on a few batches of inputs, runnable from a cut.

    Args:
        model: a working copy; it is put in eval mode, and its parameters take no gradients.
        inputs: the batches.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.inputs = list(inputs)
        self._nodes: list[fx.Node] = []
        self._cut = 0
        self._written: set[fx.Node] | None = None  # live values that a whole run was seen to work on in place
        with torch.no_grad():
            expected = self.run(0)
        self.first_output = expected
        self._trace(expected)

    @property
    def traced(self) -> bool:
        """Whether runs start at the cut; False where the model runs whole."""
        return bool(self._nodes)

    def _trace(self, expected: Any) -> None:
        try:
            graph = _Tracer().trace(self.model)
            self._nodes = list(graph.nodes)
            self._interpreter = fx.Interpreter(self.model, garbage_collect_values=False, graph=graph)
            self._dead_after = _dead_after(self._nodes)
            self._live: list[dict[fx.Node, Any]] = [{self._nodes[0]: x} for x in self.inputs]
            self._cut = 1
            with torch.no_grad():
                found = self.run(0)
            if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
                raise ValueError("its graph computes something else")
        except Exception as error:  # control flow that depends on values, and the like
            log.info("greedy: the model runs whole at every step, it cannot be traced (%s)", error)
            self._nodes, self._live = [], []

    def advance(self, layers: Iterable[str]) -> None:
        """Move the cut to just before the first call of one of these layers; earlier ones are not run again."""
        if not self.traced:
            return
        wanted = set(layers)
        calls = (place for place, node in enumerate(self._nodes) if _calls(node, wanted))
        target = next(calls, self._cut)
        if target <= self._cut:
            return
        with torch.no_grad():
            for live, x in zip(self._live, self.inputs, strict=True):
                for node, value in live.items():
                    if value is x:  # the caller's own: only a copy may be worked on in place
                        live[node] = x.clone()
                self._execute(live, self._cut, target)
        self._cut, self._written = target, None

    def at_cut(self, number: int, layers: Iterable[str]) -> tuple[str, Tensor] | None:
        """Name and input of the layer right behind the cut; None unless it is one of these, or the model runs whole."""
        if not self.traced or not _calls(self._nodes[self._cut], set(layers)):
            return None
        node = self._nodes[self._cut]
        return str(node.target), self._live[number][node.all_input_nodes[0]]

    def run(self, number: int, *, until: Iterable[str] = (), first: Tensor | None = None) -> Any:
        """The model's output for one batch, from the cut.

        Args:
            number: which batch.
            until: stop after the last of these layers instead; the output is then None.
            first: the output of the layer `at_cut`, which then does not run.
        """
        if not self.traced:
            return self.model(self.inputs[number].clone())
        wanted = set(until)
        places = [place for place, node in enumerate(self._nodes) if wanted and _calls(node, wanted)]
        live = dict(self._live[number])
        written = live if self._written is None else self._written
        live |= copied({node: live[node] for node in written})  # layers that work in place must not change the next run
        start, started = self._cut, dict(live)
        if first is not None:
            live[self._nodes[start]] = first
            start += 1
        if self._written is not None or places:
            return self._execute(live, start, places[-1] + 1 if places else len(self._nodes))
        output = self._execute(live, start, len(self._nodes))
        self._written = {node for node, value in started.items() if any(map(_written_to, tree_leaves(value)))}
        return output

    def _execute(self, live: dict[fx.Node, Any], start: int, stop: int) -> Any:
        self._interpreter.env = live
        for place in range(start, stop):
            node = self._nodes[place]
            if node.op == "output":
                return self._interpreter.run_node(node)
            live[node] = self._interpreter.run_node(node)
            for dead in self._dead_after[place]:
                live.pop(dead, None)
        return None


def _calls(node: fx.Node, layers: set[str]) -> bool:
    return node.op == "call_module" and str(node.target) in layers


def _dead_after(nodes: list[fx.Node]) -> list[list[fx.Node]]:
    """Place -> nodes whose value nobody reads after it."""
    last = {node: place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        for read in node.all_input_nodes:
            last[read] = place
    dead: list[list[fx.Node]] = [[] for _ in nodes]
    for node, place in last.items():
        dead[place].append(node)
    return dead


def _written_to(fresh: object) -> bool:
    """Whether something worked in place on a tensor, or on a view of it, since it was made."""
    return isinstance(fresh, Tensor) and fresh._version > 0
