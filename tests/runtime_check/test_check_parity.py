from __future__ import annotations

import numpy as np
import pytest

from runtime_check.errors import CheckError
from runtime_check.parity import check_parity, compare_outputs
from runtime_check.session import load


def test_equal_outputs_have_parity():
    x = np.random.default_rng(0).standard_normal((5, 3))
    found = compare_outputs(x, x)
    assert found.to_json() == {"max_abs_diff": 0, "max_rel_diff": 0, "argmax_agreement": 1, "samples": 5}


def test_differences_match_a_naive_loop():
    rng = np.random.default_rng(1)
    golden = rng.standard_normal((40, 6)) * np.exp(rng.standard_normal((40, 1)))
    outputs = golden + 0.2 * rng.standard_normal((40, 6))
    relative, absolute, agree = [], [], 0
    for a, b in zip(outputs.tolist(), golden.tolist(), strict=True):
        gaps = [abs(p - q) for p, q in zip(a, b, strict=True)]
        absolute.append(max(gaps))
        relative.append(max(gaps) / max(abs(q) for q in b))
        agree += a.index(max(a)) == b.index(max(b))
    found = compare_outputs(outputs, golden)
    assert found.max_abs_diff == pytest.approx(max(absolute))
    assert found.max_rel_diff == pytest.approx(max(relative))
    assert found.argmax_agreement == pytest.approx(agree / 40)
    assert 0 < found.argmax_agreement < 1


def test_a_sample_next_to_zero_is_measured_against_the_others():
    golden = np.array([[1.0, 0.0], [1e-12, 0.0]])
    assert compare_outputs(golden + 1e-9, golden).max_rel_diff == pytest.approx(1e-6)
    assert compare_outputs(np.zeros((2, 2)), np.zeros((2, 2))).max_rel_diff == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_have_no_difference(bad, side):
    pair = [np.ones((4, 3)), np.ones((4, 3))]
    pair[side][2, 1] = bad
    found = compare_outputs(*pair)
    assert found.max_abs_diff is None
    assert found.max_rel_diff is None


def test_nan_agrees_with_nothing_but_equal_infinity_is_equal():
    same = np.array([[np.nan, 1.0], [-np.inf, 2.0]])
    assert compare_outputs(same, same).argmax_agreement == 0.5
    masked = same[1:]
    assert compare_outputs(masked, masked).max_rel_diff == 0


def test_other_shapes_are_refused():
    with pytest.raises(CheckError, match=r"\[2, 3\].*\[2, 4\]"):
        compare_outputs(np.ones((2, 3)), np.ones((2, 4)))


@pytest.mark.parametrize("batch", ["batch", None, 1, 7, 100])
def test_a_session_is_fed_in_batches_of_the_size_it_wants(batch, write_model, weight):
    x = np.random.default_rng(2).standard_normal((150, len(weight))).astype(np.float32)
    found = check_parity(load(write_model(batch=batch)), x, x @ weight)
    assert found.samples == 150
    assert found.max_rel_diff < 1e-5


def test_float64_and_float16_models_are_fed_their_own_type(write_model, weight):
    x = np.random.default_rng(2).standard_normal((10, len(weight))).astype(np.float32)
    for kind, values, tolerance in ((11, weight.astype(np.float64), 1e-6), (10, weight.astype(np.float16), 1e-2)):
        session = load(write_model(values=values, dtype=kind))
        assert check_parity(session, x, x @ weight).max_rel_diff < tolerance


def test_wrong_samples_and_signatures_are_named(write_model, weight):
    session = load(write_model())
    with pytest.raises(CheckError, match=r"samples have shape 5, but m takes 6"):
        check_parity(session, np.ones((2, 5), np.float32), np.ones((2, 4)), "m")
    with pytest.raises(CheckError, match="samples have shape 2×3"):
        check_parity(session, np.ones((2, 2, 3), np.float32), np.ones((2, 4)))
    with pytest.raises(CheckError, match="no samples"):
        check_parity(session, np.ones((0, 6), np.float32), np.ones((0, 4)))
    integers = load(write_model(values=weight.astype(np.int32), dtype=6))
    with pytest.raises(CheckError, match="exactly one float input"):
        check_parity(integers, np.ones((2, 6), np.float32), np.ones((2, 4)))
