"""Budgets are exact; ties go to the lower index. Oracle: a stable sort."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.budget import allocate, keep_count, kth_smallest, top_mask
from compress.schedules import cubic


def naive_top(scores: np.ndarray, keep: int) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    mask = np.zeros(scores.size, dtype=bool)
    mask[order[:keep]] = True
    return mask


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_top_mask_equals_stable_sort_with_many_ties(values: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    assert (top_mask(scores, keep).numpy() == naive_top(scores.numpy(), keep)).all()


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=20), min_size=1, max_size=5),
    st.floats(0, 0.999),
)
def test_global_budget_is_exact(layers: list[list[int]], sparsity: float) -> None:
    scores = [torch.tensor(layer, dtype=torch.float32) for layer in layers]
    masks = allocate(scores, sparsity)
    total = sum(len(layer) for layer in layers)
    assert sum(int(mask.sum()) for mask in masks) == round((1 - sparsity) * total)
    joined = naive_top(np.concatenate([s.numpy() for s in scores]), keep_count(total, sparsity))
    assert (torch.cat(masks).numpy() == joined).all()


def test_layer_budget_is_exact_in_every_layer() -> None:
    scores = [torch.rand(7, 3), torch.rand(100), torch.zeros(33)]
    masks = allocate(scores, 0.75, distribution="layer")
    assert [int(mask.sum()) for mask in masks] == [round(0.25 * 21), 25, round(0.25 * 33)]
    assert [mask.shape for mask in masks] == [score.shape for score in scores]


def test_minimum_keeps_the_best_of_every_layer_within_the_same_total() -> None:
    scores = [torch.tensor([0.1, 0.3, 0.2]), torch.arange(10.0) + 5]
    masks = allocate(scores, 0.7, minimum=1)
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * 13)
    assert masks[0].tolist() == [False, True, False]


def test_minimum_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sparsity: 0\.9 keeps 1 of 6"):
        allocate([torch.rand(3), torch.rand(3)], 0.9, minimum=1)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        top_mask(torch.tensor([1.0, float("nan"), 2.0]), 2)
    with pytest.raises(ValueError, match="NaN"):
        allocate([torch.tensor([1.0, float("nan")])], 0.0)


@pytest.mark.parametrize("keep", [-1, 4])
def test_keep_out_of_range_is_refused(keep: int) -> None:
    with pytest.raises(ValueError, match="keep"):
        top_mask(torch.rand(3), keep)


def test_cubic_ramp_against_the_formula() -> None:
    values = [cubic(t, start=10, length=100, initial=0.0, final=0.9) for t in (0, 9, 10, 60, 110, 500)]
    assert values == pytest.approx([0, 0, 0, 0.9 * (1 - 0.5**3), 0.9, 0.9])
    assert cubic(0, start=0, length=0, initial=0.0, final=0.9) == 0.9


def test_bfloat16_scores() -> None:
    assert top_mask(torch.tensor([3.0, 1.0, 2.0], dtype=torch.bfloat16), 2).tolist() == [True, False, True]


def test_selection_from_many_values_is_that_of_a_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    size = 1_200_007
    normal = torch.randn(size, generator=generator)
    periodic = torch.arange(size) % 61 == 0  # what a sample of every 61st value sees is not typical
    kinds = {
        "normal": normal,
        "double": normal.double() ** 3,
        "bfloat16": normal.bfloat16(),
        "ties": torch.randint(0, 3, (size,), generator=generator).float(),
        "equal": torch.zeros(size),
        "sorted": normal.sort().values,
        "infinite": torch.where(normal > 1, torch.inf, normal),
        "periodic": torch.where(periodic, normal + 100, normal),
    }
    for name, values in kinds.items():
        ordered = values.sort().values
        for k in (1, 5, size // 100, size // 2, size - 12_000, size - 1, size):
            assert kth_smallest(values, k) == ordered[k - 1], (name, k)
    with pytest.raises(ValueError, match="NaN"):
        top_mask(torch.where(normal > 2, torch.nan, normal), size // 2)
