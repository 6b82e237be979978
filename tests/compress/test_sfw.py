"""SFW: never outside its set, at the Frank-Wolfe rate, and an ordinary torch optimizer otherwise."""

import copy
import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.frank_wolfe import SFW, FeasibleSet, KSparsePolytope, L1Ball, L2Ball, LInfBall, Simplex, k_sparse_sets


def feasible_start(shape: tuple[int, ...], feasible: FeasibleSet, seed: int, spread: float) -> Tensor:
    return feasible.project(spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    radius=st.floats(1e-3, 1e3),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    lr=st.floats(0, 1),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    rescale=st.booleans(),
)
def test_every_step_stays_inside_from_any_feasible_start(
    seed: int,
    n: int,
    k: int,
    radius: float,
    spread: float,
    size: float,
    lr: float,
    momentum: float,
    rescale: bool,
) -> None:
    feasible = KSparsePolytope(k=k, radius=radius)
    tensor = nn.Parameter(feasible_start((n,), feasible, seed, spread))
    optimizer = SFW([tensor], feasible, lr=lr, momentum=momentum, rescale=rescale)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(25):
        tensor.grad = size * torch.randn(n, generator=generator)
        optimizer.step()
        assert float(tensor.detach().abs().sum()) <= radius * min(k, n) * (1 + 1e-5)
        assert float(tensor.detach().abs().max()) <= radius * (1 + 1e-6)


def test_a_step_is_that_of_algorithm_1_with_equation_5() -> None:
    """By hand in plain numbers: two steps with K = 1, τ = 2, α = 0.5, momentum 0.9."""
    theta, momentum = [0.5, -1.0], [3.0, 1.0]  # the mean begins with the first gradient
    tensor = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
    optimizer = SFW([tensor], KSparsePolytope(k=1, radius=2.0), lr=0.5)
    for gradient in ([3.0, 1.0], [0.2, -9.0]):
        tensor.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        momentum = [0.9 * m + 0.1 * g for m, g in zip(momentum, gradient, strict=True)]
        largest = max((0, 1), key=lambda i: abs(momentum[i]))
        vertex = [-2.0 * math.copysign(1, momentum[i]) * (i == largest) for i in (0, 1)]
        step = min(0.5 * math.hypot(*momentum) / math.dist(vertex, theta), 1.0)
        theta = [t + step * (v - t) for t, v in zip(theta, vertex, strict=True)]
        assert tensor.tolist() == pytest.approx(theta)


@pytest.mark.parametrize("feasible", [KSparsePolytope(k=5, radius=0.4), L1Ball(radius=1.5), LInfBall(radius=0.3)])
def test_it_converges_at_the_frank_wolfe_rate(feasible: FeasibleSet) -> None:
    """min ½‖x − b‖² with steps 2/(t + 2): f − f* ≤ 2D²/(t + 2), the solution being the projection of b."""
    b = torch.randn(40, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    solution = feasible.project(b)
    assert feasible.outside(2 * b) is not None  # the constraint matters
    best = 0.5 * float((solution - b).square().sum())
    x = nn.Parameter(torch.zeros(40, dtype=torch.float64))
    optimizer = SFW([x], feasible, lr=1.0, momentum=0.0, rescale=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 2 / (t + 2))
    diameter = 2 * float(feasible.lmo(b).norm())
    gaps = []
    for t in range(2000):
        optimizer.zero_grad()
        loss = 0.5 * (x - b).square().sum()
        loss.backward()
        gaps.append(loss.item() - best)
        assert gaps[-1] <= 2 * diameter**2 / (t + 2) if t else True
        optimizer.step()
        schedule.step()
    assert gaps[-1] >= -1e-12
    assert gaps[-1] < gaps[100] / 10
    torch.testing.assert_close(x.detach(), solution, rtol=0, atol=0.05 * diameter)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_first_step_is_as_long_as_one_of_gradient_descent(momentum: float) -> None:
    tensor = nn.Parameter(torch.zeros(4))
    optimizer = SFW([tensor], KSparsePolytope(k=1, radius=1.0), lr=0.05, momentum=momentum)
    tensor.grad = torch.tensor([2.0, 0.0, 0.0, 0.0])
    optimizer.step()
    assert tensor.tolist() == pytest.approx([-0.1, 0.0, 0.0, 0.0])


def test_a_parameter_without_gradient_shifts_no_set_to_another() -> None:
    first, second = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    optimizer = SFW([first, second], {first: L1Ball(radius=100.0), second: L1Ball(radius=1.0)}, rescale=False)
    second.grad = torch.tensor([0.0, 5.0, 0.0, 0.0])
    optimizer.step()
    assert torch.equal(first.detach(), torch.zeros(4))
    assert second.tolist() == [0.0, -1.0, 0.0, 0.0]


def test_nothing_moves_where_there_is_no_direction_or_no_way_to_go() -> None:
    feasible = LInfBall(radius=1.0)
    vertex = nn.Parameter(torch.tensor([-1.0, 1.0]))
    optimizer = SFW([vertex], feasible, momentum=0.0)
    vertex.grad = torch.tensor([1.0, -1.0])  # its vertex is where we are: ‖v − θ‖ = 0
    optimizer.step()
    assert vertex.tolist() == [-1.0, 1.0]
    for rescale in (True, False):
        dead = nn.Parameter(torch.tensor([0.3, 0.4]))
        optimizer = SFW([dead], feasible, rescale=rescale)
        dead.grad = torch.zeros(2)
        optimizer.step()
        assert dead.tolist() == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_moves(rescale: bool, wrong: float) -> None:
    model = nn.Linear(4, 2)
    optimizer = SFW(model.named_parameters(), L2Ball(radius=9.0), rescale=rescale)
    for tensor in model.parameters():
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    before, momentum = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
    model.bias.grad = torch.tensor([wrong, 1.0])
    with pytest.raises(ValueError, match=r"params: the gradient of bias is not finite, and no tensor was moved; leave"):
        optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(momentum[key]["momentum"], after[key]["momentum"]) for key in (0, 1))


@pytest.mark.parametrize("size", [1e-25, 1e-38, 1e30])
def test_the_size_of_a_gradient_does_not_matter_without_rescaling(size: float) -> None:
    tensor = nn.Parameter(torch.zeros(2))
    optimizer = SFW([tensor], L1Ball(radius=2.0), lr=0.5, rescale=False)
    tensor.grad = torch.tensor([size, 0.0])
    optimizer.step()
    assert tensor.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "feasible",
    [
        KSparsePolytope(k=7, radius=0.3),
        L1Ball(radius=0.7),
        L2Ball(radius=0.7),
        LInfBall(radius=0.1),
        Simplex(radius=0.7),
    ],
    ids=repr,
)
def test_half_precision_scaled_into_a_set_is_inside_and_stays_there(dtype: torch.dtype, feasible: FeasibleSet) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(500, generator=generator).to(dtype)
        assert feasible.outside(start) is not None
        for way in (feasible.scale, feasible.project):
            tensor = nn.Parameter(way(start))
            optimizer = SFW([tensor], feasible, lr=0.05)
            for _ in range(10):
                tensor.grad = 300 * torch.randn(500, generator=generator).to(dtype)
                optimizer.step()
                assert feasible.outside(tensor.detach()) is None


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


def loss_of(model: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 6, generator=generator)
    return nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        schedule.step()


def test_resume_through_a_file_gives_the_same_bits() -> None:
    def start() -> tuple[nn.Module, SFW, Any]:
        model = network()
        optimizer = SFW(model.parameters(), k_sparse_sets(model), lr=0.3)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)

    whole, optimizer, schedule = start()
    train(whole, optimizer, schedule, range(30))
    model, optimizer, schedule = start()
    train(model, optimizer, schedule, range(13))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    model, _, _ = start()
    optimizer = SFW(model.parameters(), LInfBall(radius=1e6))  # the state brings its own sets
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    for part, state in zip((model, optimizer, schedule), states, strict=True):
        part.load_state_dict(state)
    train(model, optimizer, schedule, range(13, 30))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    assert all(isinstance(feasible, KSparsePolytope) for feasible in optimizer.param_groups[0]["sets"])


def test_it_learns_inside_and_its_closure_is_called() -> None:
    model = network()
    optimizer = SFW(model.named_parameters(), k_sparse_sets(model), lr=0.3)

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(model, 7)
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(60)]
    assert losses[-1] < losses[0] / 3
    for group in optimizer.param_groups:
        for tensor, feasible in zip(group["params"], group["sets"], strict=True):
            assert feasible.outside(tensor.detach()) is None


def test_accumulated_gradients_are_those_of_one_batch() -> None:
    one, two = network(), network()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 12, generator=generator)
    for model, parts in ((one, 1), (two, 4)):
        layer = model[3]
        optimizer = SFW(layer.parameters(), k_sparse_sets(model))
        for chunk in inputs.chunk(parts):
            (layer(chunk).square().sum() / len(inputs)).backward()
        optimizer.step()
    torch.testing.assert_close(one[3].weight, two[3].weight)


def test_groups_bring_their_own_settings() -> None:
    model = network()
    optimizer = SFW(
        [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[3].parameters(), "sets": L2Ball(radius=9.0)}],
        k_sparse_sets(model),
    )
    before = copy.deepcopy(model.state_dict())
    loss_of(model, 0).backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[3].weight, before["3.weight"])
    optimizer.add_param_group({"params": model[1].parameters()})
    assert len(optimizer.param_groups) == 3


def test_radii_are_tau_times_the_expected_norm_of_each_tensor() -> None:
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 10))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    sets = k_sparse_sets(model, radius=15)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    # Uniform in ±1/√fan_in: n/(3 fan_in) is the expected square of the norm.
    conv, bias, scale, shift, linear, _ = (sets[tensor] for tensor in model.parameters())
    n = 64 * 16 * 9
    assert conv.k == n // 20
    assert conv.radius == pytest.approx(15 * math.sqrt(n / (3 * 144)) / math.sqrt(n // 20), rel=0.01)
    assert (bias.k, scale.k, shift.k, linear.k) == (10, 10, 10, 32)
    assert bias.radius == pytest.approx(15 * math.sqrt(64 / (3 * 144) / 10), rel=0.03)
    assert scale.radius == pytest.approx(15 * math.sqrt(64 / 10))
    assert shift.radius == pytest.approx(15 / math.sqrt(10))


def test_keyed_by_shape_as_published_every_batchnorm_scale_starts_outside() -> None:
    model = nn.Sequential(nn.Linear(9, 64, bias=False), nn.BatchNorm1d(64))
    sets = k_sparse_sets(model, norm="shape")
    assert sets[model[1].weight] == sets[model[1].bias]
    scaled = sets[model[1].weight].scale(model[1].weight.detach())
    torch.testing.assert_close(scaled, torch.full((64,), 0.741), rtol=0, atol=5e-4)
    with pytest.raises(ValueError, match=r"params: 1\.weight starts outside its set, ‖θ‖₁ = 64 where 47\.43 is the"):
        SFW(model.named_parameters(), sets)
    SFW(model.named_parameters(), k_sparse_sets(model))


def test_norms_of_what_there_is_now() -> None:
    model = nn.Linear(100, 50)
    with torch.no_grad():
        model.weight.mul_(7)
        model.bias.zero_()
    sets = k_sparse_sets(model, norm="start", k_fraction=0.1)
    assert sets[model.weight].radius == pytest.approx(15 * model.weight.norm().item() / math.sqrt(500))
    assert sets[model.bias].radius == pytest.approx(15 / math.sqrt(10))
