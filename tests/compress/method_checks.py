"""Network, data, training loop and counts that the tests of methods share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.methods import Method
from compress.methods.dynamic import Dynamic
from compress.prunable import prunable_weights

STEPS = 40


def network() -> nn.Module:
    """Two convolutions, a BatchNorm and two linear layers for 3x8x8 inputs and 5 classes; always the same weights."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 16, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether both models hold the same bits under the same names in the same order."""
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 5, (8,), generator=generator)


DATA = [batch(-1), batch(-2)]


def optimizer_of(model: nn.Module, pruner: Method | None = None, *, fresh: bool = True) -> torch.optim.Optimizer:
    own = pruner.own_optimizer(fresh=fresh) if pruner else None
    return own or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def train(model: nn.Module, pruner: Method, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        pruner.step(optimizer)


def trained(make: Callable[[], Method]) -> tuple[nn.Module, Method]:
    model, pruner = network(), make()
    pruner.attach(model, DATA)
    train(model, pruner, optimizer_of(model, pruner), range(STEPS))
    pruner.finish()
    return model, pruner


def units(pruner: Method, model: nn.Module) -> list[tuple[int, int]]:
    """(units, living units) of every prunable layer, of a folded model or of coefficients; trained ones are living."""
    if isinstance(pruner, Dynamic) or pruner.interspace is not None:
        # What grew at 0 and got no gradient since, behind a dead ReLU, is 0 still; zeros of β are none of W.
        alive = [pruner.alive(pruner.run, weight) for weight in pruner.run.weights]
        return [(mask.numel(), int(mask.sum())) for mask in alive]
    counts = []
    for weight in prunable_weights(model, skip_last_linear=pruner.skip_last_linear).weights:
        tensor = weight.module.weight
        assert isinstance(tensor, Tensor)
        frozen = pruner.run.frozen.get(weight.name)
        living = tensor != 0 if frozen is None else tensor != frozen.tensor()
        alive = pruner.units.scores(living.float(), weight.filter_axis) > 0
        counts.append((alive.numel(), int(alive.sum())))
    return counts
