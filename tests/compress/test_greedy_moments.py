"""Streamed inner products against one forward pass per unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.greedy import moments
from compress.greedy.moments import Moments

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1x1": (nn.Conv2d(6, 5, 1), (6, 4, 5)),
    "3x3": (nn.Conv2d(6, 5, 3, padding=1, bias=False), (6, 6, 5)),
    "stride": (nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(1, 2)), (6, 7, 8)),
    "dilation": (nn.Conv2d(6, 4, 3, dilation=2, padding=2), (6, 8, 7)),
    "same": (nn.Conv2d(6, 4, 5, padding="same"), (6, 5, 5)),
    "reflect": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), (6, 5, 5)),
    "circular": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"), (6, 5, 5)),
    "groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (6, 5, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (6, 5, 5)),
    "1d": (nn.Conv1d(6, 4, 3, stride=2, padding=1), (6, 9)),
    "3d": (nn.Conv3d(6, 4, (1, 3, 2), dilation=(1, 1, 2)), (6, 2, 5, 4)),
    "linear": (nn.Linear(6, 5), (6,)),
    "tokens": (nn.Linear(6, 5), (7, 6)),
}


def naive(module: nn.Module, columns: NDArray[np.int64], batches: list[Tensor]) -> NDArray[np.float64]:
    """Each unit alone through the layer, without bias."""
    layer = module.double()
    axis = -1 if isinstance(layer, nn.Linear) else 1
    zero = layer(torch.zeros_like(batches[0][:1]).double())
    total, samples = np.zeros((len(columns), len(columns))), 0
    for x in batches:
        outputs = []
        for unit in columns:
            alone = torch.zeros_like(x, dtype=torch.float64)
            index = torch.from_numpy(unit)
            alone.index_copy_(axis, index, x.double().index_select(axis, index))
            outputs.append((layer(alone) - zero).flatten())
        u = torch.stack(outputs).detach().numpy()
        total += u @ u.T
        samples += len(x)
    return total / samples


def random_batches(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=generator) for size in (5, 3)]


def measure(module: nn.Module, columns: NDArray[np.int64], batches: list[Tensor]) -> NDArray[np.float64]:
    found = Moments(module, columns)
    for x in batches:
        found.add(x)
    return found.products()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_products(name: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, one column a unit and two, and patches of one sample at a time."""
    torch.manual_seed(0)
    module, shape = CASES[name]
    monkeypatch.setattr(moments, "PATCH_BYTES", 1)
    if direct:
        monkeypatch.setattr(moments, "COVARIANCE_BYTES", 0)
    batches = random_batches(shape)
    for columns in (np.arange(6)[:, None], np.array([[0, 1], [2, 4], [5, 3]]), np.array([[4], [1]])):
        if name == "groups" and columns.shape == (3, 2):
            columns = np.array([[0, 3], [1, 4], [2, 5]])  # the same number in both convolution groups
        expected = naive(module, columns, batches)
        assert np.abs(measure(module, columns, batches) - expected).max() <= 1e-12 * np.abs(expected).max()


def test_a_flattened_map_is_read_in_many_columns() -> None:
    torch.manual_seed(0)
    columns = np.arange(6 * 9).reshape(6, 9)
    batches = random_batches((54,))
    module = nn.Linear(54, 4)
    expected = naive(module, columns, batches)
    assert np.abs(measure(module, columns, batches) - expected).max() <= 1e-12 * np.abs(expected).max()


def test_units_add_up_to_the_layer() -> None:
    torch.manual_seed(0)
    module, x = nn.Conv2d(6, 4, 3, padding=1, bias=False), torch.randn(4, 6, 5, 5)
    energy = float(module.double()(x.double()).detach().square().sum() / 4)
    assert measure(module, np.arange(6)[:, None], [x]).sum() == pytest.approx(energy, rel=1e-12)


def test_a_long_stream_loses_nothing_to_float32() -> None:
    """Large, nearly equal values: squared sums in float32 would keep two digits."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    batches = [1000 + torch.randn(50, 3) for _ in range(40)]
    expected = naive(module, np.arange(3)[:, None], [torch.cat(batches)])
    found = measure(module, np.arange(3)[:, None], batches)
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_errors() -> None:
    module = nn.Conv2d(4, 2, 1, groups=2)
    with pytest.raises(ValueError, match="columns: the units reach a convolution group with unequal"):
        Moments(module, np.array([[0, 1], [2, 0]]))
    found = Moments(nn.Linear(3, 2), np.arange(3)[:, None])
    with pytest.raises(ValueError, match="batches: empty"):
        found.products()
    with pytest.raises(ValueError, match="batches: activations are NaN"):
        found.add(torch.tensor([[1.0, float("nan"), 0.0]]))
