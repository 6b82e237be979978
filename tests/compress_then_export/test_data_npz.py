from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_checks import random_bytes, refused

from compress_then_export.data import open_data


def write_npz(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "x_train": random_bytes(0, 12, 3, 32, 32),
        "y_train": np.arange(12) % 4,
        "x_test": random_bytes(1, 6, 3, 32, 32),
        "y_test": np.arange(6) % 4,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_npz(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "data.npz")
    data = open_data({"source": f"npz:{path}"}, input_shape=(3, 32, 32))
    assert data.num_classes == 4 and (len(data.train), len(data.test)) == (12, 6)
    assert np.array_equal(data.train.images.numpy(), random_bytes(0, 12, 3, 32, 32))
    assert data.augmentation is not None and data.augmentation.mirror
    assert open_data({"source": f"npz:{path}", "num_classes": 9}).num_classes == 9


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), (1, 8, 8)),
        ((8, 9, 1), (1, 8, 9)),
        ((8, 9, 3), (3, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
        ((1, 8, 3), (1, 8, 3)),
        ((5, 8, 9), (5, 8, 9)),
    ],
)
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random((12, *shape))
    path = write_npz(tmp_path / "d.npz", x_train=images, x_test=images[:6], y_train=np.arange(12)[:, None] % 4)
    data = open_data({"source": f"npz:{path}"})
    assert data.input_shape == expected and data.train.images.dtype == torch.float32
    assert data.augmentation is None
    channels_last = expected[0] == shape[-1] and expected != shape and len(shape) == 3
    want = images.transpose(0, 3, 1, 2) if channels_last else images.reshape(12, *expected)
    torch.testing.assert_close(data.train.images, torch.from_numpy(want).float())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, ["no array y_test", "x_train"]),
        ({"x_train": np.zeros((12, 3))}, ["x_train has shape (12, 3)"]),
        ({"x_train": np.zeros((12, 8, 8), np.int64)}, ["x_train is int64"]),
        ({"y_train": np.zeros(12)}, ["y_train must be whole numbers"]),
        ({"y_train": np.zeros(11, np.int64)}, ["12 images in x_train but 11 labels"]),
        ({"y_train": -np.arange(12)}, ["train label -11 lies outside"]),
        ({"y_test": np.full(6, 4)}, ["test label 4 lies outside 0..3"]),
        ({"x_test": random_bytes(1, 6, 1, 28, 28)}, ["3x32x32", "1x28x28"]),
        ({"x_train": np.zeros((0, 3, 32, 32)), "y_train": np.zeros(0, np.int64)}, ["train split is empty"]),
        ({"x_train": np.full((12, 3, 32, 32), np.nan)}, ["train image 0 has NaN"]),
        ({"y_train": np.array([None] * 12)}, ["pickled objects"]),
    ],
)
def test_npz_errors(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    refused(f"npz:{write_npz(tmp_path / 'd.npz', **changes)}", *words)


def test_nan_names_the_image_beyond_the_first_chunk(tmp_path: Path) -> None:
    images = np.zeros((1500, 2, 2), np.float32)
    images[1400, 1, 1] = np.inf
    path = write_npz(tmp_path / "d.npz", x_train=images, y_train=np.arange(1500) % 4, x_test=images[:6])
    refused(f"npz:{path}", "train image 1400 has NaN or infinite")


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    refused(f"npz:{tmp_path / 'none.npz'}", "does not exist")
    path = write_npz(tmp_path / "d.npz")
    path.write_bytes(path.read_bytes()[:5000])
    refused(f"npz:{path}", "truncated")
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused(f"npz:{tmp_path / 'one.npy'}", "truncated or no npz archive")
    (tmp_path / "text.npz").write_text("hello")
    refused(f"npz:{tmp_path / 'text.npz'}", "no npz archive")
