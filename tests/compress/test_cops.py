"""COPS against the linear program it solves (scipy's HiGHS), its limits in α, and its errors."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from compress.cops import best, cops, similarity

Array = NDArray[np.float64]


def instance(seed: int, size: int, kind: str) -> tuple[Tensor, Tensor]:
    """Importances as SNIP's (positive) and as GraSP's (of both signs), heavy-tailed and correlated."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator, dtype=torch.float64) ** 3
    other = 0.5 * base + torch.randn(size, generator=generator, dtype=torch.float64) ** 3
    control = {"signed": other, "positive": other.abs()}[kind]
    return base.abs(), control


def normalised(importance: Tensor) -> Array:
    return (-importance / importance.abs().sum()).numpy()


def relaxed(target: Tensor, control: Tensor, keep: int, kappa: float) -> Array:
    """The linear program (P1)."""
    rows = np.stack([normalised(control), np.ones(len(target))])
    solved = linprog(normalised(target), A_ub=rows, b_ub=[kappa, keep], bounds=(0, 1), method="highs")
    assert solved.status == 0
    return np.asarray(solved.x)


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(5, 300),
    share=st.floats(0.02, 0.9),
    alpha=st.floats(0, 0.9999),
    kind=st.sampled_from(["signed", "positive"]),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_linear_program_up_to_its_fractional_entries(
    seed: int, size: int, share: float, alpha: float, kind: str
) -> None:
    target, control = instance(seed, size, kind)
    assume(bool((control > 0).any()))  # else there is nothing to hold a mask to, which is an error tested below
    keep = max(1, int(share * size))
    solution = cops([target], [control], keep=keep, alpha=alpha)
    optimum = relaxed(target, control, keep, solution.kappa)
    mask = solution.masks[0].numpy()
    fractional = (optimum > 1e-7) & (optimum < 1 - 1e-7)
    assert fractional.sum() <= 2
    objective = normalised(target)
    gap = objective[mask].sum() - objective @ optimum
    assert gap >= -1e-9  # nothing that fulfils the constraint is better than the relaxation
    assert gap <= 2 * np.abs(objective)[fractional | (mask != (optimum > 0.5))].max(initial=0.0) + 1e-9
    assert mask.sum() <= keep
    assert normalised(control)[mask].sum() <= solution.kappa + 1e-12


@pytest.mark.parametrize("kind", ["signed", "positive"])
def test_a_large_instance_differs_in_two_entries_at_most(kind: str) -> None:
    target, control = instance(0, 3000, kind)
    for alpha in (0.3, 0.9, 0.999):
        solution = cops([target], [control], keep=300, alpha=alpha)
        optimum = relaxed(target, control, 300, solution.kappa)
        assert int((solution.masks[0].numpy() != (optimum > 1 - 1e-7)).sum()) <= 2


@given(
    values=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=60),
    share=st.floats(0.02, 1),
    alpha=st.floats(0, 0.9999),
)
@settings(max_examples=150, deadline=None)
def test_tied_weights_fill_up_what_the_constraint_allows(
    values: list[tuple[int, int]], share: float, alpha: float
) -> None:
    target, control = torch.tensor(values, dtype=torch.float64).T
    assume(bool(target.any()) and bool((control > 0).any()))
    keep = max(1, int(share * len(values)))
    solution = cops([target], [control], keep=keep, alpha=alpha)
    mask = solution.masks[0].numpy()
    objective = normalised(target)
    optimum = objective @ relaxed(target, control, keep, solution.kappa)
    assert objective[mask].sum() - optimum <= 2 * np.abs(objective).max() + 1e-9
    assert normalised(control)[mask].sum() <= solution.kappa + 1e-12
    ranked = solution.importance[0].argsort(descending=True, stable=True)[: mask.sum()]
    assert mask.sum() <= keep and mask[ranked.numpy()].all()


def test_two_kinds_of_weights_are_mixed() -> None:
    """All of either kind would miss the constraint, or the objective by half."""
    target = torch.tensor([1.0] * 50 + [3.0] * 50 + [2.0] * 50)
    control = torch.tensor([3.0] * 50 + [1.0] * 50 + [2.0] * 50)
    solution = cops([target], [control], keep=60, alpha=0.5)
    mask = solution.masks[0].numpy()
    assert normalised(target)[mask].sum() == pytest.approx(-0.5167, abs=0.01)
    assert normalised(control)[mask].sum() <= solution.kappa


def test_narrowing_changes_nothing_against_plain_bisection() -> None:
    target, control = instance(5, 500, "signed")
    first, second = torch.from_numpy(normalised(target)), torch.from_numpy(normalised(control))
    for keep, alpha in [(25, 0.5), (100, 0.95), (450, 0.7)]:
        solution = cops([target], [control], keep=keep, alpha=alpha)
        low, high = 0.0, 1e4
        for _ in range(200):
            middle = (low + high) / 2
            over = float(second[best(first + middle * second, keep)].sum()) > solution.kappa
            low, high = (middle, high) if over else (low, middle)
        assert torch.equal(solution.masks[0], best(first + high * second, keep))


@pytest.mark.parametrize(("seed", "alpha"), [(5, 0.0), (6, 0.4), (7, 0.95), (8, 0.99999)])
def test_the_guess_from_a_sample_changes_nothing(monkeypatch: pytest.MonkeyPatch, seed: int, alpha: float) -> None:
    target, control = instance(seed, 3000, "signed")
    plain = cops([target], [control], keep=300, alpha=alpha)
    monkeypatch.setattr("compress.cops._SAMPLED", 100)
    guessed = cops([target], [control], keep=300, alpha=alpha)
    assert torch.equal(plain.masks[0], guessed.masks[0])


def test_alpha_0_gives_the_target_mask_and_alpha_near_1_the_control_mask() -> None:
    target, control = instance(1, 2000, "positive")
    near, far = (cops([target], [control], keep=100, alpha=alpha) for alpha in (0.0, 1 - 1e-12))
    assert near.multiplier == 0
    assert near.target_similarity == 1
    assert torch.equal(near.masks[0], best(-target, 100))
    assert far.control_similarity >= 0.99


def test_masks_move_from_one_parent_to_the_other_without_turning_back() -> None:
    """Figure 2 of 000, Figure 4.6 of 002."""
    target, control = instance(2, 20_000, "signed")
    alphas = [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.999, 0.9999, 0.99999]
    solutions = [cops([target], [control], keep=1000, alpha=alpha) for alpha in alphas]
    to_target = [solution.target_similarity for solution in solutions]
    to_control = [solution.control_similarity for solution in solutions]
    assert to_target == sorted(to_target, reverse=True)
    assert to_control == sorted(to_control)
    assert to_target[0] - to_target[-1] > 0.3
    assert all(min(s.target_similarity, s.control_similarity) >= s.parent_similarity - 1e-12 for s in solutions)
    assert [s.multiplier for s in solutions] == sorted(s.multiplier for s in solutions)


def test_shapes_scale_and_order_of_tensors() -> None:
    target, control = instance(3, 60, "signed")
    whole = cops([target], [control], keep=12, alpha=0.8)
    parts = cops(
        [100 * target[:24].view(2, 3, 4), 100 * target[24:]],
        [control[:24].view(2, 3, 4), control[24:]],
        keep=12,
        alpha=0.8,
    )
    assert [tuple(mask.shape) for mask in parts.masks] == [(2, 3, 4), (36,)]
    assert torch.equal(torch.cat([mask.flatten() for mask in parts.masks]), whole.masks[0])
    importance = whole.importance[0]
    assert torch.equal(whole.masks[0], best(-importance, 12))


def test_similarity_is_that_of_equation_13() -> None:
    one, other = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 1, 1, 1]).bool()
    assert similarity(one, other) == pytest.approx(1 / 3)
    assert similarity(one, one) == 1
    assert similarity(one, torch.zeros(4).bool()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.0}, r"alpha: 1.0 is not a number in \[0, 1\)"),
        ({"alpha": -0.1}, "alpha: -0.1"),
        ({"keep": 0}, "keep: 0"),
        ({"keep": 11}, "keep: 11"),
        ({"control": [torch.ones(9)]}, "control: its tensors have other shapes"),
        ({"control": [-torch.ones(10)]}, "control: no weight has a positive importance"),
        ({"target": [torch.full((10,), float("nan"))]}, "target: nan"),
        ({"control": [torch.zeros(10)]}, "control: 0.0"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"target": [torch.ones(10)], "control": [torch.ones(10)], "keep": 3, "alpha": 0.5}
    with pytest.raises(ValueError, match=message):
        cops(**{**arguments, **changes})  # type: ignore[arg-type]
