"""Frozen values: the published generator, the promised distributions, the same bits everywhere."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from compress.frozen import DISTRIBUTIONS, FrozenValues, frozen_values, unit_values
from compress.threefry import threefry

SIZE = 700_001

# Known answers of Random123 (kat_vectors, threefry2x32 with 20 rounds): counter, key, result.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_threefry_gives_the_known_answers(
    counter: tuple[int, int], key: tuple[int, int], result: tuple[int, int]
) -> None:
    arrays = threefry(key, np.array([counter[0]]), np.array([counter[1]]))
    assert tuple(int(word[0]) for word in arrays) == result
    tensors = threefry(key, torch.tensor([counter[0]]), torch.tensor([counter[1]]))
    assert tuple(int(word) for word in tensors) == result


def values(distribution: str, size: int = SIZE, **changes: Any) -> FrozenValues:
    settings = {"seed": 12345, "stream": 3, "scale": 0.5, "shape": (size,), **changes}
    return FrozenValues(distribution=distribution, **settings)


def naive(frozen: FrozenValues, position: int) -> float:
    """One weight, by the sentence in the docstring and plain integers."""
    bits = DISTRIBUTIONS[frozen.distribution]
    lanes = {10: 1024, 1: 96}[bits]
    counter = np.array([position % lanes]), np.array([frozen.stream * 2**18 + position // 6144])
    word = int(threefry((frozen.seed, 0), *counter)[position % 6144 // 3072][0])
    chosen = (word >> bits * (position % 3072 // lanes)) & (2**bits - 1)
    return float(unit_values(frozen.distribution)[chosen] * np.float32(frozen.scale))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_torch_numpy_and_any_slice_have_equal_bits(distribution: str) -> None:
    frozen = values(distribution, scale=float(np.float32(0.0312)))
    whole = frozen.array()
    assert whole.dtype == np.float32
    tensor = frozen.tensor()
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy().view(np.uint32), whole.view(np.uint32))
    for start, stop in [(0, 0), (0, 1), (6143, 6145), (5000, 5001), (600_000, SIZE), (SIZE - 1, SIZE), (SIZE, SIZE)]:
        np.testing.assert_array_equal(frozen.values(start, stop), whole[start:stop])
    for position in (0, 1, 95, 96, 1023, 1024, 3071, 3072, 6143, 6144, 524_288, SIZE - 1):
        assert naive(frozen, position) == whole[position]


def test_the_first_weights_never_change() -> None:
    # a checkpoint that stores only the seed depends on these
    bits = [
        frozen.array().view(np.uint32)[[0, 1, 2, 5000]].tolist()
        for frozen in (values(name, 5001, seed=7, stream=1) for name in DISTRIBUTIONS)
    ]
    assert bits == [
        [0x3F3A483A, 0xBD83FD84, 0xBE4BEB4E, 0x3ED265C0],
        [0x3EDAC000, 0xBD520000, 0xBE1E8000, 0x3E96C000],
        [0x3F000000, 0x3F000000, 0x3F000000, 0x3F000000],
    ]


def quantile_distance(distribution: str, oracle: Any) -> float:
    """Kolmogorov-Smirnov distance between the table, all 1024 entries equally likely, and the true distribution."""
    below = oracle.cdf(unit_values(distribution).astype(np.float64))
    steps = np.arange(1025) / 1024
    return float(max(np.abs(below - steps[:-1]).max(), np.abs(below - steps[1:]).max()))


def test_the_table_of_the_normal_distribution() -> None:
    table = unit_values("xavier_normal").astype(np.float64)
    assert quantile_distance("xavier_normal", stats.norm) < 7e-4
    assert (np.diff(table) > 0).all()
    np.testing.assert_array_equal(table, -table[::-1])
    for power, oracle, error in ((2, 1, 1e-5), (4, 3, 1e-5), (6, 15, 1e-2)):
        assert np.mean(table**power) == pytest.approx(oracle, rel=error)


def test_the_table_of_the_uniform_distribution_has_the_midpoints() -> None:
    assert quantile_distance("kaiming_uniform", stats.uniform(-1, 2)) == 1 / 2048


ORACLES = {"xavier_normal": stats.norm(0, 0.5), "kaiming_uniform": stats.uniform(-0.5, 1)}


@pytest.mark.parametrize("distribution", ORACLES)
def test_samples_follow_the_distribution(distribution: str) -> None:
    sample = values(distribution).array().astype(np.float64)
    oracle = ORACLES[distribution]
    assert stats.kstest(sample, oracle.cdf).pvalue > 0.01
    assert abs(sample.mean()) < 4 * oracle.std() / math.sqrt(SIZE)
    assert abs(sample.var() / oracle.var() - 1) < 4 * math.sqrt(2 / SIZE)
    for lag in (1, 2, 96, 1024, 3072, 6144):
        assert abs(np.corrcoef(sample[:-lag], sample[lag:])[0, 1]) < 4 / math.sqrt(SIZE)


def test_signs_are_fair_and_independent() -> None:
    sample = values("signed_constant").array()
    assert set(np.unique(sample).tolist()) == {-0.5, 0.5}
    for lag in (1, 96, 3072, 6144):
        assert abs(float(np.mean(np.sign(sample[:-lag] * sample[lag:])))) < 4 / math.sqrt(SIZE)
    assert abs(float(np.mean(sample))) < 4 * 0.5 / math.sqrt(SIZE)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_streams_and_seeds_have_nothing_in_common(distribution: str) -> None:
    one = values(distribution).array()
    for other in (values(distribution, stream=4), values(distribution, seed=12346)):
        assert abs(np.corrcoef(one, other.array())[0, 1]) < 4 / math.sqrt(SIZE)


SHAPES = {"conv": (20, 5, 3, 3), "linear": (50, 80)}


def test_scales_are_those_of_torchs_initialisations() -> None:
    def std(name: str) -> float:
        return math.sqrt(2 / (fans(SHAPES[name])[0] + fans(SHAPES[name])[1]))

    for distribution in ("xavier_normal", "signed_constant"):
        found = frozen_values(1, SHAPES, distribution)
        assert [found[name].scale for name in SHAPES] == [float(np.float32(std(name))) for name in SHAPES]
        assert [item.stream for item in found.values()] == [0, 1]
    for name, frozen in frozen_values(1, SHAPES, "kaiming_uniform").items():
        weight = torch.empty(400, *SHAPES[name][1:])
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        assert float(weight.abs().max()) == pytest.approx(frozen.scale, rel=1e-3)
        assert frozen.array().shape == SHAPES[name]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    return fan_in, fan_out


def test_weights_may_be_given_as_tensors() -> None:
    tensors = {name: torch.empty(shape) for name, shape in SHAPES.items()}
    assert frozen_values(5, tensors) == frozen_values(5, SHAPES)


def test_records_survive_json() -> None:
    for frozen in frozen_values(2**32 - 1, SHAPES).values():
        copy = FrozenValues.from_json(json.loads(json.dumps(frozen.to_json())))
        assert copy == frozen
        np.testing.assert_array_equal(copy.array(), frozen.array())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2**32}, "seed: 4294967296 is not"),
        ({"seed": -1}, "seed: -1 is not"),
        ({"seed": 1.0}, "seed: 1.0 is not"),
        ({"seed": True}, "seed: True is not"),
        ({"stream": 8192}, "stream: 8192 is not"),
        ({"distribution": "normal"}, "distribution: 'normal' is not one of xavier_normal"),
        ({"scale": 0.1}, "scale: 0.1 is not a positive float32 number"),
        ({"scale": 0.0}, "scale: 0.0 is not"),
        ({"scale": math.nan}, "scale: nan is not"),
        ({"scale": math.inf}, "scale: inf is not"),
        ({"shape": [2, 3]}, r"shape: \[2, 3\] is not"),
        ({"shape": (2, 0)}, r"shape: \(2, 0\) is not"),
        ({"shape": (2**20, 2**20)}, "shape: "),
        ({"shape": (2, -3)}, "shape: "),
    ],
)
def test_wrong_settings_name_the_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        FrozenValues(**{**values("xavier_normal").to_json(), "shape": (5,), **change})


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="start, stop: "):
        values("xavier_normal").values(5, 4)
    with pytest.raises(ValueError, match="start, stop: "):
        values("xavier_normal").values(0, SIZE + 1)
    with pytest.raises(ValueError, match="weights: 'bias' has the shape"):
        frozen_values(0, {"bias": (5,)})
    with pytest.raises(ValueError, match=r"^distribution: "):
        frozen_values(0, {}, "normal")
    with pytest.raises(ValueError, match=r"^record: "):
        FrozenValues.from_json({"seed": 1})
