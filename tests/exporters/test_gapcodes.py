"""Gap codes against a cursor that walks the tensor element by element."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.encodings.gapcodes import Codes, best_codes


def walk(codes: Codes, size: int) -> list[float]:
    """The decoder as docs/encodings.md describes it."""
    distances = codes.low.tolist()
    place, skip = 0, 2**codes.extra_bits - 1
    for code in codes.extra.tolist():
        place += code
        if code != skip:
            distances[place] += 2**codes.low_bits
    tensor, cursor = [0.0] * size, 0
    for value, distance in zip(codes.values.tolist(), distances, strict=True):
        tensor[cursor] = value
        cursor += distance
    return tensor


@pytest.mark.parametrize("density", [0.9, 0.3, 0.1, 0.02, 0.002])
def test_a_cursor_restores_the_tensor(density: float) -> None:
    rng = np.random.default_rng(1)
    tensor = (rng.standard_normal((60, 50)) * (rng.random((60, 50)) < density)).astype(np.float32) + np.float32(0)
    codes = best_codes(tensor)
    flat = tensor.transpose(codes.order).reshape(-1)
    np.testing.assert_array_equal(np.array(walk(codes, flat.size), np.float32), flat)


@given(gaps=st.lists(st.integers(0, 9000), min_size=1, max_size=30), tail=st.integers(0, 100))
def test_any_gaps(gaps: list[int], tail: int) -> None:
    flat = np.concatenate([*(np.eye(1, gap + 1, gap, dtype=np.float32)[0] for gap in gaps), np.zeros(tail, np.float32)])
    codes = best_codes(flat)
    assert codes.low.max() < 2**codes.low_bits
    assert codes.extra.max(initial=0) < 2**codes.extra_bits
    np.testing.assert_array_equal(np.array(walk(codes, flat.size), np.float32), flat)


@pytest.mark.parametrize(("density", "bits"), [(0.1, 4), (0.01, 8), (0.0001, 16)])
def test_sparser_tensors_take_wider_codes(density: float, bits: int) -> None:
    rng = np.random.default_rng(1)
    tensor = (rng.random(2_000_000) < density).astype(np.float32)
    assert best_codes(tensor).low_bits == bits


def test_four_bit_codes_come_near_the_entropy_bound() -> None:
    rng = np.random.default_rng(1)
    tensor = (rng.random(400_000) < 0.1).astype(np.float32)
    codes = best_codes(tensor)
    bits_a_value = (codes.low.size * codes.low_bits + codes.extra.size * codes.extra_bits) / codes.values.size
    entropy = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9)) / 0.1
    assert entropy < bits_a_value < 1.09 * entropy
