"""What the tests of shrink share: small layers, dead filters by hand, and the check itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.shrink import ShrinkPlan, apply_plan, shrink


def conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bool(settings.pop("bias", False)), **settings)  # type: ignore[arg-type]


def silence(layer: nn.Module, rows: Sequence[int]) -> None:
    """Zero whole filters, as a user's own filter pruning does: weight and conv bias, not the BatchNorm behind."""
    with torch.no_grad():
        layer.weight[list(rows)] = 0  # type: ignore[index]
        if layer.bias is not None:
            layer.bias[list(rows)] = 0  # type: ignore[index]


def ignore(layer: nn.Module, columns: Sequence[int]) -> None:
    """Zero what a layer reads from these channels, as unstructured pruning may."""
    with torch.no_grad():
        layer.weight[:, list(columns)] = 0  # type: ignore[index]


def set_norms(model: nn.Module, *, bias: float | None = None) -> nn.Module:
    """``model`` for evaluation, statistics and parameters as after training; a given bias for all, else random ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.5, generator=generator)
                if bias is not None:
                    norm.bias.fill_(bias)
    return model.eval()


def assert_same(masked: nn.Module, shrunk: nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad():
        expected, found = masked.eval()(*inputs), shrunk.eval()(*inputs)
    assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert expected.std() > 1e-6, "the outputs do not depend on anything, the comparison is void"


def shrink_checked(model: nn.Module, x: Tensor, **settings: int) -> ShrinkPlan:
    """Shrink, compare with the masked model, and replay the plan through JSON on another copy of it."""
    masked, replayed = copy.deepcopy(model), copy.deepcopy(model)
    plan = shrink(model, x, **settings)
    assert_same(masked, model, torch.randn_like(x) * 2)
    apply_plan(replayed, ShrinkPlan.from_json(plan.to_json()))
    for (name, a), (other, b) in zip(model.state_dict().items(), replayed.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    return plan


@pytest.fixture(autouse=True)
def _one_seeded_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors only lose by more
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))


class Chain(nn.Module):
    def __init__(self, *, padding: int = 1, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.first, self.norm = conv(3, 8), nn.BatchNorm2d(8)
        self.second = conv(8, 5, padding=padding)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.norm(self.first(x))))  # type: ignore[no-any-return]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv(3, 8), conv(8, 8), conv(8, 4, 1, 0)
        self.norm_stem, self.norm_branch = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_stem(self.stem(x)))
        return self.head(F.relu(x + self.norm_branch(self.branch(x))))  # type: ignore[no-any-return]


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(3, 5), conv(3, 6)
        self.norm, self.head = nn.BatchNorm2d(14), conv(14, 4, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), x, self.right(x)], 1)
        return self.head(F.relu(self.norm(x)))  # type: ignore[no-any-return]


class Inverted(nn.Module):
    """Expand, depthwise, squeeze-excite, project: the block of MobileNets and EfficientNets."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = conv(3, 8, 1, 0), conv(8, 8, groups=8), conv(8, 4, 1, 0)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.squeeze, self.excite = conv(8, 4, 1, 0, bias=True), conv(4, 8, 1, 0, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norms[0](self.expand(x)))
        x = F.relu6(self.norms[1](self.depthwise(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.project(x * gate)  # type: ignore[no-any-return]


class Grouped(nn.Module):
    def __init__(self, groups: int = 4, middle: int = 8) -> None:
        super().__init__()
        self.first, self.grouped, self.last = conv(3, 8), conv(8, middle, groups=groups), conv(middle, 3, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.grouped(F.relu(self.first(x)))))  # type: ignore[no-any-return]


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
"""Input of :func:`make_model`."""


def make_model() -> nn.Sequential:
    """A small network with BatchNorm, groups and a linear head."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, groups=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.Flatten(),
        nn.Linear(216, 4),
    )


def make_masked() -> nn.Sequential:
    """The same with dead filters."""
    torch.manual_seed(0)
    model = make_model()
    with torch.no_grad():
        model[1].bias.fill_(1.0)  # type: ignore[union-attr, operator]
        model[0].weight[[0, 1, 5, 6]] = 0  # type: ignore[index]
        model[3].weight[[2, 3, 4]] = 0  # type: ignore[index]
        model[3].bias[[3, 4]] = -1.0  # type: ignore[index]
        model[5].weight[1] = 0  # type: ignore[index]
    return model.eval()


def run(model: nn.Module) -> Tensor:
    """Its outputs in eval mode."""
    with torch.no_grad():
        return model.eval()(X)  # type: ignore[no-any-return]
