"""What the tests of greedy imitation share: networks with trained-looking norms, choices, and the naive scaling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from method_checks import network
from shrink_checks import set_norms
from torch import Tensor, nn
from torch.nn import functional

from compress.greedy.groups import ChannelGroup, Network
from compress.greedy.local import Imitation
from compress.shrink.layers import channel_dim


def taught(data: Sequence[tuple[Tensor, Tensor]]) -> nn.Module:
    """A network that has learnt something, so that its loss can rise."""
    torch.manual_seed(0)
    model = set_norms(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(60):
        inputs, labels = data[step % len(data)]
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


def choose(group: ChannelGroup, rng: np.random.Generator, share: float = 0.5) -> Imitation:
    """A random part of the units with random shares."""
    kept = np.sort(rng.choice(group.units, max(1, int(group.units * share)), replace=False))
    shares = rng.random(len(kept)) + 0.1
    return Imitation(kept=kept, shares=shares / shares.sum(), discrepancy=0.0)


@torch.no_grad()
def scaled_by_hooks(
    model: nn.Module, network: Network, thinned: list[tuple[ChannelGroup, Imitation]], x: Tensor
) -> Tensor:
    """The scaled-and-masked network by its definition: the activations arriving at the consumers are multiplied."""
    handles = []
    for group, imitation in thinned:
        for name, columns in group.consumers.items():
            module = model.get_submodule(name)
            factors = torch.ones(len(network.channels.inputs[name]), dtype=torch.float64)
            dense = group.units * imitation.dense(group.units)
            factors[torch.from_numpy(columns)] = torch.from_numpy(dense)[:, None]
            axis = channel_dim(module)

            def scale(_: nn.Module, args: tuple[Tensor], factors: Tensor = factors, axis: int = axis) -> tuple[Tensor]:
                return (args[0] * factors.to(args[0].dtype).reshape(-1, *[1] * (-1 - axis)),)

            handles.append(module.register_forward_pre_hook(scale))
    try:
        found: Tensor = model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
