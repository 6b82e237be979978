"""Structures of the budget against naive loops; ERK against its formula."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from compress.budget import keep_count
from compress.erk import erk_counts
from compress.methods import DPF, OneShot
from compress.structures import Blocks, Filters, Neighbours, structure_called

SHAPES = [(8, 6, 3, 3), (5, 7), (4, 1, 3, 3), (6, 9, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("filter_axis", [0, 1])
def test_n_of_m_keeps_the_largest_of_every_group(shape: tuple[int, ...], filter_axis: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    structure = Neighbours(keep=2, of=4)
    if shape[1 - filter_axis] < 2:
        return
    (mask,) = structure.choose(
        [weight.abs()], [weight.shape], [filter_axis], sparsity=0.5, distribution="global", minimum=0
    )
    rows = weight.abs().movedim(1 - filter_axis, -1).flatten(0, -2)
    chosen = mask.movedim(1 - filter_axis, -1).flatten(0, -2)
    for row, lives in zip(rows, chosen, strict=True):
        for start in range(0, row.numel(), 4):
            group, alive = row[start : start + 4], lives[start : start + 4]
            best = sorted(range(group.numel()), key=lambda i: (-float(group[i]), i))[:2]
            assert sorted(torch.nonzero(alive).flatten().tolist()) == sorted(best)


def test_n_of_m_on_a_ramp_keeps_more() -> None:
    score = torch.rand(4, 8)
    kept = {
        sparsity: int(
            Neighbours(keep=1, of=4)
            .choose([score], [score.shape], [0], sparsity=sparsity, distribution="global", minimum=0)[0]
            .sum()
        )
        for sparsity in (0.0, 0.3, 0.5, 0.75)
    }
    assert kept == {0.0: 32, 0.3: 24, 0.5: 16, 0.75: 8}


def test_n_of_m_ties_go_to_the_lower_index_and_nan_is_refused() -> None:
    structure, ones = Neighbours(keep=2, of=4), torch.ones(1, 8)
    shapes, axes = [ones.shape], [0]
    (mask,) = structure.choose([ones], shapes, axes, sparsity=0.5, distribution="global", minimum=0)
    assert mask.tolist() == [[True, True, False, False] * 2]
    with pytest.raises(ValueError, match="NaN"):
        structure.choose([ones * torch.nan], shapes, axes, sparsity=0.5, distribution="global", minimum=0)


def test_n_of_m_tells_float64_scores_apart_that_float32_cannot_hold() -> None:
    score = torch.tensor([[1e39, 1e42, 1e40, 1e41]], dtype=torch.float64)
    (mask,) = Neighbours(keep=2, of=4).choose(
        [score], [score.shape], [0], sparsity=0.5, distribution="global", minimum=0
    )
    assert mask.tolist() == [[False, True, False, True]]


def test_a_filter_mask_takes_a_byte_a_filter() -> None:
    model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3))
    pruner = OneShot(sparsity=0.5, structure="filters")
    pruner.attach(model)
    assert [mask.untyped_storage().nbytes() for mask in pruner.run.masks()] == [32, 32]


def test_n_of_m_that_fits_no_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(ValueError, match="structure: 2:4 fits no layer"):
        OneShot(sparsity=0.5, structure="2:4").attach(model)


def naive_blocks(score: Tensor, rows: int, columns: int, *, norm: bool) -> dict[tuple[int, ...], float]:
    total: dict[tuple[int, ...], float] = {}
    for index in itertools.product(*map(range, score.shape)):
        unit = (index[0] // rows, index[1] // columns, *index[2:])
        value = float(score[index])
        total[unit] = total.get(unit, 0.0) + (value**2 if norm else value)
    return {unit: value**0.5 if norm else value for unit, value in total.items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("filter_axis", [0, 1])
def test_blocks_against_a_loop(shape: tuple[int, ...], norm: bool, filter_axis: int) -> None:
    score = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    structure = Blocks(rows=3, columns=2)
    units = structure.scores(score, filter_axis, norm=norm)
    expected = naive_blocks(score, *((3, 2) if filter_axis == 0 else (2, 3)), norm=norm)
    assert units.numel() == len(expected)
    for unit, value in expected.items():
        assert float(units[unit]) == pytest.approx(value)
    chosen = units > units.median()
    mask = structure.mask(chosen, score.shape, filter_axis)
    assert mask.shape == score.shape
    assert torch.equal(structure.units(mask, filter_axis), chosen)
    assert torch.equal(structure.scores(mask.double(), filter_axis) > 0, chosen)


def test_filters_have_one_unit_each() -> None:
    weight = torch.randn(3, 5, 2, 2)
    for axis, shape in ((0, (3, 1, 1, 1)), (1, (1, 5, 1, 1))):
        assert Filters().units(weight, axis).shape == shape
        norms = Filters().scores(weight.abs(), axis, norm=True)
        assert norms.shape == shape
        torch.testing.assert_close(norms.flatten(), weight.movedim(axis, 0).flatten(1).norm(dim=1))


@pytest.mark.parametrize("name", ["", "2:2", "0:4", "block:4", "block:4x", "weight", None, 4])
def test_unknown_structures_are_refused(name: object) -> None:
    with pytest.raises(ValueError, match=r"structure: .* is not one of weights, filters"):
        structure_called(name)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_erk_is_exact_and_follows_its_formula(sparsity: float) -> None:
    shapes = [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 1, 1), (512, 256, 3, 3), (10, 512)]
    sizes = [torch.Size(shape).numel() for shape in shapes]
    counts = erk_counts(shapes, sizes, sparsity)
    assert sum(counts) == keep_count(sum(sizes), sparsity)
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    # One ε for all layers that are not dense.
    sparse = [
        count / size / (sum(shape) / size)
        for count, size, shape in zip(counts, sizes, shapes, strict=True)
        if 50 < count < size
    ]
    assert max(sparse, default=0) == pytest.approx(min(sparse, default=0), rel=0.02)


def test_erk_respects_minimum_and_refuses_what_cannot_be() -> None:
    shapes, sizes = [(1000, 1000), (2, 2)], [1_000_000, 4]
    assert erk_counts(shapes, sizes, 0.999, minimum=3)[1] >= 3
    assert sum(erk_counts([(4, 4), (100, 4)], [16, 400], 0.9, minimum=12)) == keep_count(416, 0.9)
    with pytest.raises(ValueError, match="minimum_units"):
        erk_counts([(4, 4), (100, 4)], [16, 400], 0.9, minimum=30)
    with pytest.raises(ValueError, match="minimum_units"):
        DPF(sparsity=0.99, ramp_steps=4, distribution="erk", minimum_units=50).attach(
            nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 2))
        )
