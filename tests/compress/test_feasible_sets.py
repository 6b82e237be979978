"""Feasible sets against enumeration of their vertices."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.frank_wolfe import FeasibleSet, KSparsePolytope, L1Ball, L2Ball, LInfBall, Simplex

SETS: list[FeasibleSet] = [
    KSparsePolytope(k=1, radius=0.7),
    KSparsePolytope(k=2, radius=1.5),
    KSparsePolytope(k=5, radius=0.3),
    KSparsePolytope(k=9, radius=0.4),  # more than there are entries
    L1Ball(radius=1.3),
    L2Ball(radius=0.8),
    LInfBall(radius=0.5),
    Simplex(radius=1.2),
]
ALL = pytest.mark.parametrize("feasible", SETS, ids=repr)
N = 5


def vertices(feasible: FeasibleSet) -> list[list[float]]:
    """Every vertex of the polytopes in 5 dimensions, by enumeration."""
    r = feasible.radius
    if isinstance(feasible, Simplex):
        return [[r * (i == j) for i in range(N)] for j in range(N)]
    k = {KSparsePolytope: lambda: min(feasible.k, N), L1Ball: lambda: 1, LInfBall: lambda: N}[type(feasible)]()
    found = []
    for chosen in combinations(range(N), k):
        for signs in product((-r, r), repeat=k):
            vertex = [0.0] * N
            for index, sign in zip(chosen, signs, strict=True):
                vertex[index] = sign
            found.append(vertex)
    return found


def draw(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@ALL
def test_the_oracle_is_the_best_of_all_vertices(feasible: FeasibleSet) -> None:
    for seed in range(20):
        direction = draw(seed)
        value = float(direction @ feasible.lmo(direction))
        if isinstance(feasible, L2Ball):
            best = -feasible.radius * float(direction.norm())
        else:
            best = min(float(direction @ torch.tensor(v, dtype=torch.float64)) for v in vertices(feasible))
        assert value == pytest.approx(best, abs=1e-12)
        assert feasible.outside(feasible.lmo(direction)) is None


def test_vertices_of_the_polytope_have_k_entries_of_the_radius() -> None:
    feasible = KSparsePolytope(k=7, radius=0.25)
    vertex = feasible.lmo(torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)))
    assert vertex.shape == (4, 5, 3)
    assert int((vertex != 0).sum()) == 7
    assert torch.equal(vertex[vertex != 0].abs(), torch.full((7,), 0.25))


def test_the_oracle_looks_at_sizes_not_at_coordinates() -> None:
    vertex = KSparsePolytope(k=1, radius=1.0).lmo(torch.tensor([3.0, -5.0, 4.0]))
    assert vertex.tolist() == [0.0, 1.0, 0.0]


@ALL
def test_projections_are_nearest_points(feasible: FeasibleSet) -> None:
    """p is the projection of b if and only if p is inside and ⟨b − p, v − p⟩ ≤ 0 for every vertex v."""
    for seed in range(40):
        point = draw(seed, 0.2 + seed % 4)
        found = feasible.project(point)
        assert feasible.outside(found) is None
        if isinstance(feasible, L2Ball):
            torch.testing.assert_close(found, point * min(1.0, feasible.radius / float(point.norm())))
            continue
        for vertex in vertices(feasible):
            assert float((point - found) @ (torch.tensor(vertex, dtype=torch.float64) - found)) < 1e-9


def test_one_ball_is_the_polytope_of_one_entry_and_the_other_that_of_all() -> None:
    for seed in range(10):
        point = draw(seed, 2.0)
        one, all_of_them = KSparsePolytope(k=1, radius=0.9), KSparsePolytope(k=N, radius=0.9)
        torch.testing.assert_close(one.project(point), L1Ball(radius=0.9).project(point))
        torch.testing.assert_close(all_of_them.project(point), LInfBall(radius=0.9).project(point))
        assert torch.equal(one.lmo(point), L1Ball(radius=0.9).lmo(point))
        assert torch.equal(all_of_them.lmo(point), LInfBall(radius=0.9).lmo(point))


@ALL
@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    zeros=st.integers(0, 5),
)
def test_both_ways_back_lead_inside_and_leave_what_is_inside(
    feasible: FeasibleSet, values: list[float], zeros: int
) -> None:
    point = torch.tensor(values + [0.0] * zeros)
    projected, scaled = feasible.project(point), feasible.scale(point)
    for inside in (projected, scaled):
        assert feasible.outside(inside) is None
    if not isinstance(feasible, Simplex):
        assert torch.equal(feasible.scale(scaled / 2), scaled / 2)
        assert torch.equal(feasible.project(scaled / 2), scaled / 2)
    assert float((point - projected).norm()) <= float((point - scaled).norm()) * (1 + 1e-5) + 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections_of_far_points_into_small_sets_are_inside(dtype: torch.dtype) -> None:
    """Points up to 1e8 against radii near 1e-5: differences of such sums have no digit left of the radius."""
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        size = 10 ** float(4 + 4 * torch.rand((), generator=generator))
        point = (size * torch.randn(2 + seed % 40, generator=generator, dtype=torch.float64)).to(dtype)
        radius = 1e-5 * (1 + seed % 20)
        for feasible in (L1Ball(radius=radius), Simplex(radius=radius), KSparsePolytope(k=3, radius=radius)):
            found = feasible.project(point)
            assert feasible.outside(found) is None
            reached = radius * min(getattr(feasible, "k", 1), len(point))
            assert float(found.abs().sum()) == pytest.approx(reached, rel=0.01)


def test_an_empty_simplex_has_no_point() -> None:
    simplex, nothing = Simplex(radius=1.0), torch.empty(0)
    assert simplex.outside(nothing) is not None
    for point in (simplex.lmo(nothing), simplex.project(nothing), simplex.scale(nothing)):
        assert point.shape == (0,)


def test_a_point_outside_says_how_far() -> None:
    assert KSparsePolytope(k=10, radius=15 / 10**0.5).outside(torch.ones(64)) == "‖θ‖₁ = 64 where 47.43 is the bound"
    assert LInfBall(radius=0.5).outside(torch.tensor([0.1, -2.0])) == "‖θ‖_∞ = 2 where 0.5 is the bound"
    assert L2Ball(radius=0.5).outside(torch.tensor([torch.nan])) is not None
    assert KSparsePolytope(k=1, radius=1.0).outside(torch.empty(0)) is None


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_a_radius_is_a_positive_number(radius: object) -> None:
    with pytest.raises(ValueError, match="radius: "):
        L2Ball(radius=radius)  # type: ignore[arg-type]


def test_a_radius_of_numpy_becomes_a_plain_number() -> None:
    radius = L2Ball(radius=np.float32(1)).radius  # type: ignore[arg-type]
    assert type(radius) is float


@pytest.mark.parametrize("k", [0, -3, 2.5, True])
def test_k_is_a_whole_number(k: object) -> None:
    with pytest.raises(ValueError, match="k: "):
        KSparsePolytope(radius=1.0, k=k)  # type: ignore[arg-type]
