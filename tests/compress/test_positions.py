"""Gap codes against a naive reader, and the type that takes fewer bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.positions import decode, encode


def read(codes: list[int], largest: int) -> list[int]:
    """Positions, one code after the other."""
    positions, at = [], 0
    for code in codes:
        at += code
        if code < largest:
            positions.append(at)
            at += 1
    return positions


@given(st.sets(st.integers(0, 200_000), max_size=50))
def test_round_trip_and_naive_reader(chosen: set[int]) -> None:
    positions = np.array(sorted(chosen), dtype=np.int64)
    codes = encode(positions)
    assert decode(codes).tolist() == positions.tolist()
    assert read(codes.tolist(), int(np.iinfo(codes.dtype).max)) == positions.tolist()


@pytest.mark.parametrize("gap", [0, 254, 255, 256, 509, 510, 511, 65534, 65535, 65536, 131070])
def test_gaps_at_the_edges_of_the_types(gap: int) -> None:
    positions = np.array([3, 4 + gap], dtype=np.int64)
    assert decode(encode(positions)).tolist() == positions.tolist()


@pytest.mark.parametrize(("step", "dtype"), [(10, np.uint8), (1000, np.uint16)])
def test_the_smaller_type_is_taken(step: int, dtype: type) -> None:
    assert encode(np.arange(0, 100 * step, step)).dtype == dtype


def test_codes_that_end_inside_a_gap() -> None:
    with pytest.raises(ValueError, match="end inside a gap"):
        decode(np.array([3, 255], dtype=np.uint8))
