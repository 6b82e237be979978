"""SFW-Init: it lowers the loss it claims to lower, stays in the sets, and works on every network we have."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from compress.frank_wolfe import SFW, KSparsePolytope, k_sparse_sets, sfw_init
from compress.frank_wolfe.initialisation import RULES, Rule, loss_after_step
from compress_then_export.models import build, describe
from compress_then_export.models.catalogue import builtin_names


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.5), nn.Linear(24, 3))


def batches(count: int, size: int = 32, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(size, 6, generator=generator) for _ in range(count)]
    return [(x, x[:, :3].argmax(dim=1)) for x in inputs]


def overlapping(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    half = len(first[0]) // 2
    return torch.cat([first[0][:half], second[0][:half]]), torch.cat([first[1][:half], second[1][:half]])


def test_one_step_of_the_scales_lowers_the_loss_after_one_step_of_training() -> None:
    """On the same S and S̃, with the optimizer itself taking the step."""
    for seed in range(5):
        data = batches(2, seed=seed)

        def measured(model: nn.Module, data: list[tuple[Tensor, Tensor]] = data) -> float:
            stepped = copy.deepcopy(model).train()
            stepped[3].eval()  # dropout
            optimizer = SFW(stepped.parameters(), KSparsePolytope(k=4, radius=30.0), lr=5.0)
            functional.cross_entropy(stepped(data[0][0]), data[0][1]).backward()
            optimizer.step()
            inputs, targets = overlapping(*data)
            return functional.cross_entropy(stepped(inputs), targets).item()

        model = network()
        sets = dict.fromkeys(model.parameters(), KSparsePolytope(k=4, radius=30.0))
        before = measured(model)
        for rule, scale_lr in (("gradient", 0.05), ("adam", 0.005)):
            scaled = copy.deepcopy(model)
            its = {ours: sets[tensor] for ours, tensor in zip(scaled.parameters(), model.parameters(), strict=True)}
            found = sfw_init(scaled, data, its, lr=5.0, iterations=1, scale_lr=scale_lr, rule=rule)
            assert found.losses == pytest.approx([before], rel=1e-5)
            assert measured(scaled) < before


def test_the_gradient_of_the_scales_is_that_of_the_loss_with_the_step_held_fixed() -> None:
    model, (now, other) = network().double().eval(), batches(2)
    now, both = (now[0].double(), now[1]), overlapping((now[0].double(), now[1]), (other[0].double(), other[1]))
    sets = dict.fromkeys((name for name, _ in model.named_parameters()), KSparsePolytope(k=3, radius=2.0))
    values = {name: tensor.detach() for name, tensor in model.named_parameters()}
    scales = {name: torch.ones((), dtype=torch.float64, requires_grad=True) for name in values}
    tensors = {name: scales[name] * value for name, value in values.items()}
    loss_after_step(model, tensors, now, both, sets, lr=1.0, rescale=True).backward()

    # The same by hand: plain tensors, vertices and sizes computed once, central differences.
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    first = functional.cross_entropy(torch.func.functional_call(model, leaves, (now[0],)), now[1])
    gradients = dict(zip(leaves, torch.autograd.grad(first, list(leaves.values())), strict=True))
    fixed = {}
    for name, gradient in gradients.items():
        vertex = sets[name].lmo(gradient)
        fixed[name] = vertex, min(1.0, float(gradient.norm() / (vertex - values[name]).norm()))

    def after(name: str, shift: float) -> float:
        stepped = {}
        for key, value in values.items():
            vertex, size = fixed[key]
            scaled = value * (1 + shift * (key == name))
            stepped[key] = scaled + size * (vertex - scaled)
        return functional.cross_entropy(torch.func.functional_call(model, stepped, (both[0],)), both[1]).item()

    for name, scale in scales.items():
        assert scale.grad is not None
        assert float(scale.grad) == pytest.approx((after(name, 1e-5) - after(name, -1e-5)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_it_learns_scales_and_leaves_everything_else_alone(rule: Rule) -> None:
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    data = batches(5)
    found = sfw_init(
        model, data, k_sparse_sets(model), iterations=60, scale_lr=0.05 if rule == "gradient" else 0.01, rule=rule
    )
    assert sum(found.losses[-10:]) < sum(found.losses[:10])
    assert len(found.losses) == 60
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key] * found.scales[key] if key in found.scales else before[key])
    assert any(abs(scale - 1) > 0.05 for scale in found.scales.values())
    assert all(tensor.grad is None for tensor in model.parameters())


@settings(max_examples=20, deadline=None)
@given(scale_lr=st.floats(1e-3, 5.0), minimum=st.sampled_from([0.01, 0.5]), slack=st.sampled_from([1.0, 1.02, 10.0]))
def test_scales_keep_their_lower_bound_and_their_sets(scale_lr: float, minimum: float, slack: float) -> None:
    model = network()
    sets = {
        tensor: KSparsePolytope(k=5, radius=slack * max(tensor.abs().max().item(), tensor.abs().sum().item() / 5, 0.1))
        for tensor in model.parameters()
    }
    found = sfw_init(model, batches(3), sets, iterations=4, scale_lr=scale_lr, minimum=minimum)
    assert all(sets[tensor].outside(tensor.detach()) is None for tensor in model.parameters())
    assert min(found.scales.values()) >= minimum * (1 - 1e-6)


def test_it_reads_overlapping_batches() -> None:
    read: list[list[int]] = []

    class Sees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 1))

        def forward(self, x: Tensor) -> Tensor:
            read.append(x[:, 0].int().tolist())
            return x @ self.weight.T

    model = Sees()
    data = [(torch.arange(4.0).view(4, 1) + 10 * i, torch.zeros(4, dtype=torch.long)) for i in range(3)]
    sfw_init(model, data, k_sparse_sets(model), iterations=3)
    assert read == [
        [0, 1, 2, 3], [0, 1, 10, 11], [10, 11, 12, 13], [10, 11, 20, 21], [20, 21, 22, 23], [20, 21, 0, 1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"iterations": -1}, "iterations: -1"),
        ({"scale_lr": 0.0}, "scale_lr: 0.0"),
        ({"minimum": 0.0}, "minimum: 0.0"),
        ({"rule": "sgd"}, "rule: 'sgd' is not one of adam, gradient"),
        ({"lr": -1}, "lr: -1"),
        ({"lr": 2, "rescale": False}, r"lr: 2\.0 is not in \[0, 1\]"),
    ],
)
def test_wrong_settings(settings_: dict[str, object], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        sfw_init(model, batches(2), k_sparse_sets(model), **settings_)  # type: ignore[arg-type]


def test_too_few_batches_and_a_loss_that_is_not_finite() -> None:
    model = network()
    for count, said in ((0, "none given"), (1, "1 given")):
        with pytest.raises(ValueError, match=f"batches: {said}; SFW-Init overlaps"):
            sfw_init(model, batches(count), k_sparse_sets(model))
    broken = [(x * torch.nan, y) for x, y in batches(2)]
    with pytest.raises(ValueError, match="after one step the loss is nan"):
        sfw_init(model, broken, k_sparse_sets(model))


def test_batches_that_can_be_read_only_once() -> None:
    model = network()
    with pytest.raises(ValueError, match="batches: they end after 3 and cannot be read again; give a list or a loader"):
        sfw_init(model, iter(batches(3)), k_sparse_sets(model), iterations=3)
    assert len(sfw_init(model, iter(batches(3)), k_sparse_sets(model), iterations=2).losses) == 2


def test_gradients_are_taken_where_they_are_off_too() -> None:
    one, two = network(), network()
    with torch.no_grad():
        off = sfw_init(one, batches(3), k_sparse_sets(one), iterations=3)
    assert off == sfw_init(two, batches(3), k_sparse_sets(two), iterations=3)


def check(model: nn.Module, shape: tuple[int, int, int], size: int, iterations: int) -> None:
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(2)
    ]
    sets = k_sparse_sets(model)
    found = sfw_init(model, data, sets, iterations=iterations)
    assert set(found.scales) == {name for name, _ in model.named_parameters()}
    assert all(sets[tensor].outside(tensor.detach()) is None for tensor in model.parameters())
    moved = [name for name, scale in found.scales.items() if scale != 1]
    assert len(moved) >= sum(tensor.ndim > 1 for tensor in model.parameters())  # all but tensors of zeros
    SFW(model.named_parameters(), sets)


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "wrn28-10"])
def test_every_builtin_network(name: str) -> None:
    torch.manual_seed(0)
    info = describe(f"builtin:{name}")
    channels, height, width = info.input_shape
    model = build(f"builtin:{name}", num_classes=10, in_channels=channels)
    check(model, (channels, height, width), 4, 2)


@pytest.mark.slow
def test_the_wide_network() -> None:
    check(build("builtin:wrn28-10", num_classes=10, in_channels=3), (3, 32, 32), 4, 2)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_networks_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    check(build(f"torchvision:{name}", num_classes=10), (3, 64, 64), 4, 2)
