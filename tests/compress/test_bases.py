"""Filter bases against the formulas of thesis 002, chapter 5, naive loops and numpy."""

import math

import numpy as np
import pytest
import torch

from compress import bases
from compress.bases import Basis


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# groups of filters, axis they are spread along, channels a group: one for all, three output and two input channels.
LAYOUTS = [(1, 0, 1), (2, 0, 3), (3, 1, 2)]


@pytest.mark.parametrize(("groups", "axis", "channels"), LAYOUTS)
def test_kernels_are_the_sum_of_5_5(groups: int, axis: int, channels: int) -> None:
    basis = Basis(drawn(groups, 4, 3, 3), axis=axis, channels=channels)
    beta = drawn(5, 5, 4, seed=1)
    kernels = basis(beta)
    assert kernels.shape == (5, 5, 3, 3)
    assert kernels.is_contiguous()
    for position in np.ndindex(5, 5):
        group = position[axis] // channels if groups > 1 else 0
        expected = sum(beta[position][k] * basis.filters[group, k] for k in range(4))
        torch.testing.assert_close(kernels[position], expected)


@pytest.mark.parametrize(("groups", "axis", "channels"), LAYOUTS)
@pytest.mark.parametrize("size", [4, 9, 12])
def test_coefficients_are_least_squares_of_least_norm(groups: int, axis: int, channels: int, size: int) -> None:
    basis = Basis(drawn(groups, size, 3, 3), axis=axis, channels=channels)
    weight = drawn(5, 5, 3, 3, seed=1)
    beta = basis.coefficients(weight)
    for position in np.ndindex(5, 5):
        group = position[axis] // channels if groups > 1 else 0
        matrix = basis.filters[group].detach().flatten(1).T.numpy()
        expected = np.linalg.lstsq(matrix, weight[position].flatten().numpy())[0]
        np.testing.assert_allclose(beta[position].numpy(), expected, atol=1e-9)
    if size >= 9:
        torch.testing.assert_close(basis(beta), weight)


@pytest.mark.parametrize(("groups", "axis", "channels"), LAYOUTS)
def test_gradients_against_finite_differences(groups: int, axis: int, channels: int) -> None:
    basis = Basis(drawn(groups, 4, 2, 3), axis=axis, channels=channels)
    beta = drawn(5, 5, 4, seed=1).requires_grad_()

    def kernels(beta: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(basis, {"filters": filters}, beta)

    assert torch.autograd.gradcheck(kernels, (beta, basis.filters.detach().requires_grad_()))


def test_the_gradient_of_filters_is_that_of_5_10() -> None:
    basis, beta, upstream = Basis(drawn(1, 9, 3, 3)), drawn(4, 2, 9, seed=1), drawn(4, 2, 3, 3, seed=2)
    basis(beta).backward(upstream)
    expected = [
        sum(beta[n, m, i] * upstream[n, m] for n in range(4) for m in range(2)) for i in range(9)
    ]  # fmt: skip
    assert basis.filters.grad is not None
    torch.testing.assert_close(basis.filters.grad[0], torch.stack([torch.as_tensor(e) for e in expected]))


def test_standard_coefficients_are_the_weights_bit_for_bit() -> None:
    weight = torch.randn(6, 3, 3, 5, generator=generator())
    basis = Basis(bases.standard((3, 5)).float()[None])
    assert torch.equal(basis.coefficients(weight), weight.flatten(2))
    assert torch.equal(basis(weight.flatten(2)), weight)


def test_an_onb_is_gram_schmidt_of_gaussian_filters() -> None:
    filters = bases.onb((3, 3), generator(7))
    flat = filters.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(9, dtype=torch.float64))
    remaining = torch.randn(9, 9, generator=generator(7), dtype=torch.float64)
    for k in range(9):
        vector = remaining[k] - sum((remaining[k] @ flat[j]) * flat[j] for j in range(k))
        torch.testing.assert_close(flat[k], vector / vector.norm())
    weight = drawn(2, 2, 3, 3)
    beta = Basis(filters[None]).coefficients(weight)
    torch.testing.assert_close(beta, weight.flatten(2) @ flat.T)  # β = Aᵀφ


@pytest.mark.parametrize("size", [1, 2, 5, 9, 14])
def test_random_filters_keep_the_variance_of_their_coefficients(size: int) -> None:
    filters = bases.random((3, 3), size, generator(3))
    ones = torch.ones(3, 3, dtype=torch.float64)
    torch.testing.assert_close(filters.sum(dim=0), ones)
    torch.testing.assert_close((filters**2).sum(dim=0), ones)
    weight = torch.empty(300, 40, 3, 3, dtype=torch.float64)
    kernels = Basis(filters[None])(bases.kaiming(weight, size, generator(4))).detach()
    expected = 2 / (40 * 9)
    # 12,000 draws an entry: the sample variance has a standard error of √(2 / 12000), 1.3 %.
    variance = kernels.flatten(0, 1).var(dim=0)
    assert float((variance / expected - 1).abs().max()) < 5 * math.sqrt(2 / 12_000)
    assert float(kernels.mean().abs()) < 5 * math.sqrt(expected / 12_000)


def test_fitted_filters_lose_only_the_smallest_singular_values() -> None:
    kernels = drawn(50, 3, 3) * torch.linspace(0.1, 3, 3, dtype=torch.float64)
    singular = np.linalg.svd(kernels.flatten(1).numpy(), compute_uv=False)
    for size in (1, 4, 9):
        filters = bases.fitted(kernels, size)
        torch.testing.assert_close(filters.flatten(1) @ filters.flatten(1).T, torch.eye(size, dtype=torch.float64))
        basis = Basis(filters[None])
        lost = float(((basis(basis.coefficients(kernels[None])) - kernels[None]).detach() ** 2).sum())
        assert lost == pytest.approx(float((singular[size:] ** 2).sum()), abs=1e-9)


def test_fitted_is_complete_for_fewer_kernels_than_entries_and_for_none_but_zeros() -> None:
    for kernels in (drawn(2, 3, 3), torch.zeros(4, 3, 3, dtype=torch.float64)):
        flat = bases.fitted(kernels, 9).flatten(1)
        torch.testing.assert_close(flat @ flat.T, torch.eye(9, dtype=torch.float64))
