from __future__ import annotations

import numpy as np
import pytest

from runtime_check import accuracy as accuracy_module
from runtime_check.accuracy import compare_accuracy, read_data
from runtime_check.errors import CheckError
from runtime_check.session import load

RNG = np.random.default_rng(4)
INPUTS = RNG.standard_normal((300, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, 300)


@pytest.fixture
def pair(write_model, weight):
    other = weight + 0.4 * np.random.default_rng(8).standard_normal(weight.shape).astype(np.float32)
    return load(write_model("a.onnx")), load(write_model("b.onnx", other)), other


def test_counts_match_brute_force_however_the_data_are_cut(pair, weight):
    a, b, other = pair
    first, second = ((INPUTS @ w).argmax(1) == LABELS for w in (weight, other))
    for size in (300, 64, 7, 1):
        cut = [(INPUTS[i : i + size], LABELS[i : i + size]) for i in range(0, 300, size)]
        found = compare_accuracy(a, b, iter(cut))
        assert (found.samples, found.baseline_correct, found.compressed_correct) == (300, first.sum(), second.sum())
        assert (found.lost, found.won) == ((first & ~second).sum(), (second & ~first).sum())
    assert found.lost
    assert found.won
    assert found.drop_points == pytest.approx(100 * (first.mean() - second.mean()))
    low, high = found.drop_ci95
    assert low < found.drop_points < high
    side = found.side(found.baseline_correct)
    assert side["accuracy_ci95"][0] < side["accuracy"] < side["accuracy_ci95"][1]


def test_nan_outputs_are_wrong_even_where_argmax_would_be_right(write_model, weight):
    broken = weight.copy()
    broken[:, 2] = np.nan
    model = load(write_model("n.onnx", broken))
    found = compare_accuracy(load(write_model("a.onnx")), model, [(INPUTS, np.full(300, 2))])
    assert found.compressed_correct == 0


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no samples"),
        ([(INPUTS[:0], LABELS[:0])], "no samples"),
        ([INPUTS], "pairs"),
        ([(INPUTS, LABELS[:5])], "labels of batch 0"),
        ([(INPUTS, LABELS[:, None])], "labels of batch 0"),
        ([(INPUTS, LABELS.astype(float))], "labels of batch 0"),
        ([(INPUTS.astype(int), LABELS)], "inputs of batch 0 must be floats"),
        ([(np.float32(1), LABELS)], "labels of batch 0"),
        ([(INPUTS, LABELS + 4)], "between 0 and 3"),
        ([(INPUTS, -LABELS - 1)], "between 0 and 3"),
        ([(INPUTS[:, :5], LABELS)], "samples have shape 5"),
    ],
)
def test_data_that_do_not_fit_are_named(batches, message, pair):
    with pytest.raises(CheckError, match=message):
        compare_accuracy(pair[0], pair[1], batches)


def test_a_data_file_gives_what_the_arrays_give(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy_module, "_BATCH_BYTES", 1000)
    np.savez_compressed(tmp_path / "d.npz", inputs=INPUTS, labels=LABELS.astype(np.uint8))
    batches = list(read_data(tmp_path / "d.npz", pair[1]))
    assert len(batches) > 5
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in batches]), INPUTS)
    assert compare_accuracy(pair[0], pair[1], batches) == compare_accuracy(pair[0], pair[1], [(INPUTS, LABELS)])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS}, "no array 'labels'"),
        ({"inputs": INPUTS.astype(int), "labels": LABELS}, "must be floats"),
        ({"inputs": INPUTS, "labels": LABELS[:9]}, "differ in length"),
        ({"inputs": INPUTS, "labels": LABELS * 1.0}, "must be integers"),
        ({"inputs": INPUTS, "labels": np.array([None] * 300)}, "pickles"),
        ({"inputs": INPUTS[:, :3], "labels": LABELS}, "samples have shape 3"),
        ({"inputs": np.float32(1), "labels": LABELS}, "differ in length"),
    ],
)
def test_a_wrong_data_file_is_named(arrays, message, pair, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(CheckError, match=message):
        list(read_data(tmp_path / "d.npz", pair[1]))


def test_a_missing_or_damaged_data_file_is_named(pair, tmp_path):
    with pytest.raises(CheckError, match=r"absent\.npz does not exist"):
        read_data(tmp_path / "absent.npz", pair[1])
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(CheckError, match=r"junk\.npz is not an \.npz"):
        list(read_data(tmp_path / "junk.npz", pair[1]))
