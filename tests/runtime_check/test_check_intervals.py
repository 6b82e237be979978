from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_check.intervals import median_interval, paired_difference, wilson


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    # Newcombe 1998 (Two-sided confidence intervals for the single proportion), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_printed_numbers(correct, samples, low, high):
    assert wilson(correct, samples) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_rejects(counts):
    correct, samples = counts
    share = correct / samples
    for end in wilson(correct, samples):
        assert 0 <= end <= 1
        if 0 < end < 1:
            assert abs(share - end) / math.sqrt(end * (1 - end) / samples) == pytest.approx(1.959964, rel=1e-4)


def test_wilson_without_samples_knows_nothing_and_bad_counts_are_refused():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="correct"):
        wilson(3, 2)


def test_paired_difference_by_hand():
    # 10 only first, 4 only second, 100 samples: (10.5 - 4.5) / 102, half 1.96 sqrt(15 - 36 / 102) / 102.
    half = 1.959964 * math.sqrt(15 - 36 / 102) / 102
    assert paired_difference(10, 4, 100) == pytest.approx((6 / 102 - half, 6 / 102 + half), rel=1e-5)
    low, high = paired_difference(4, 10, 100)
    assert (-high, -low) == pytest.approx(paired_difference(10, 4, 100))
    with pytest.raises(ValueError, match="discordant"):
        paired_difference(3, 3, 5)


def test_paired_difference_covers_the_truth():
    rng = np.random.default_rng(0)
    first, second, samples = 0.06, 0.03, 400
    hits = 0
    for counts in rng.multinomial(samples, [first, second, 1 - first - second], 1000):
        low, high = paired_difference(int(counts[0]), int(counts[1]), samples)
        hits += low <= first - second <= high
    assert 930 <= hits <= 975


def test_median_interval_equals_a_naive_block_bootstrap():
    values = np.random.default_rng(1).gamma(9, size=60)
    block, blocks = 4, 15
    rng = np.random.default_rng(7)
    medians = []
    for starts in rng.integers(0, 60, (400, blocks, 1)):
        sample = [values[(start + step) % 60] for (start,) in starts for step in range(block)]
        medians.append(sorted(sample)[29:31])
    expected = np.quantile(np.mean(medians, axis=1), [0.025, 0.975])
    assert median_interval(values, resamples=400, seed=7) == pytest.approx(tuple(expected))


def test_median_interval_covers_the_true_median():
    rng = np.random.default_rng(2)
    hits = 0
    for series in np.exp(0.1 * rng.standard_normal((200, 80))):
        low, high = median_interval(series, resamples=400)
        hits += low <= 1.0 <= high
    assert 176 <= hits <= 199


def test_blocks_widen_the_interval_of_a_drifting_series():
    """Against a bootstrap of single values, which would be far too sure of a slow wave."""
    wave = 1 + 0.1 * np.sin(np.arange(1000) / 20)
    low, high = median_interval(wave)
    rng = np.random.default_rng(0)
    single = np.quantile(np.median(wave[rng.integers(0, 1000, (1000, 1000))], axis=1), [0.025, 0.975])
    assert high - low > 2 * (single[1] - single[0])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.integers(0, 5))
def test_median_interval_is_repeatable_and_stays_within_the_values(values, seed):
    low, high = median_interval(values, resamples=400, seed=seed)
    assert min(values) <= low <= high <= max(values)
    assert (low, high) == median_interval(values, resamples=400, seed=seed)


def test_a_long_series_is_sliced_and_an_empty_one_refused():
    low, high = median_interval(np.random.default_rng(0).standard_normal(30_000), resamples=2000)
    assert -0.05 < low < 0 < high < 0.05
    with pytest.raises(ValueError, match="values"):
        median_interval([])
