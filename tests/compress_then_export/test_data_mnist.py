from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_checks import random_bytes, refused

from compress_then_export.data import DataError, open_data
from compress_then_export.data import idx as idx_module
from compress_then_export.vision import torchvision


def idx_bytes(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """The format of Yann LeCun's page: magic 0, 0, type 8, dimensions; big-endian sizes; values."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, packed: bool, labels: int = 10) -> dict[str, np.ndarray[Any, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": random_bytes(1, 20, 28, 28),
        "train-labels-idx1-ubyte": (np.arange(20) % labels).astype(np.uint8),
        "t10k-images-idx3-ubyte": random_bytes(2, 10, 28, 28),
        "t10k-labels-idx1-ubyte": (np.arange(10)[::-1] % labels).astype(np.uint8),
    }
    for name, array in arrays.items():
        content = idx_bytes(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("subfolder", [".", "MNIST/raw"])
def test_mnist(tmp_path: Path, packed: bool, subfolder: str) -> None:
    arrays = write_mnist(tmp_path / subfolder, packed=packed)
    data = open_data({"source": f"mnist:{tmp_path}"}, input_shape=(1, 28, 28))
    assert data.input_shape == (1, 28, 28) and data.num_classes == 10
    assert np.array_equal(data.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    assert data.test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert data.augmentation is not None and not data.augmentation.mirror


def test_mnist_agrees_with_torchvision(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", packed=False)
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True, download=False)
    ours = open_data({"source": f"mnist:{tmp_path}"}).train
    assert torch.equal(ours.images[:, 0], theirs.data) and torch.equal(ours.labels, theirs.targets)


def test_mnist_against_a_model_of_another_shape(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False)
    refused(f"mnist:{tmp_path}", "1x28x28", "3x32x32", "resize: true", options={"input_shape": (3, 32, 32)})
    data = open_data({"source": f"mnist:{tmp_path}", "resize": True}, input_shape=(3, 32, 32))
    assert data.input_shape == (3, 32, 32) and data.train.images.shape == (20, 3, 32, 32)
    small = open_data({"source": f"mnist:{tmp_path}"}, input_shape=(1, 32, 32), fixed_size=False)
    assert small.input_shape == (1, 28, 28)


def test_mnist_labels_out_of_range(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False, labels=12)
    refused(f"mnist:{tmp_path}", "train label 11 lies outside 0..9")
    assert open_data({"source": f"mnist:{tmp_path}", "num_classes": 12}).num_classes == 12
    refused(f"mnist:{tmp_path}", "data.num_classes: 1", num_classes=1)


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("train-images-idx3-ubyte", None, ["no file train-images-idx3-ubyte", ".gz"]),
        ("t10k-labels-idx1-ubyte", None, ["no file t10k-labels-idx1-ubyte"]),
        ("train-images-idx3-ubyte", lambda c: c[:-5], ["should hold 15680 bytes", "only 15675"]),
        ("train-images-idx3-ubyte", lambda c: c + b"x", ["has more"]),
        ("train-images-idx3-ubyte", lambda c: c[:7], ["no idx file"]),
        ("train-images-idx3-ubyte", lambda c: b"\x1f\x8b" + c, ["no idx file"]),
        ("train-labels-idx1-ubyte", lambda c: b"\0\0\x0d\x01" + c[4:], ["no idx file"]),
        ("train-images-idx3-ubyte", lambda c: c[:4] + b"\xff" * 12 + c[16:], ["more than 2 GiB"]),
        (
            "train-labels-idx1-ubyte",
            lambda c: idx_bytes(np.zeros(19, np.uint8)),
            ["20 train images but 19 labels"],
        ),
    ],
)
def test_damaged_mnist(tmp_path: Path, name: str, spoil: Callable[[bytes], bytes] | None, words: list[str]) -> None:
    write_mnist(tmp_path, packed=False)
    file = tmp_path / name
    if spoil is None:
        file.unlink()
    else:
        file.write_bytes(spoil(file.read_bytes()))
    refused(f"mnist:{tmp_path}", *words)


def test_damaged_gzip_and_empty_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    refused(f"mnist:{tmp_path}", "cannot be read")
    file.write_bytes(content[:200] + b"\0" * 50 + content[250:])
    refused(f"mnist:{tmp_path}", "cannot be read")
    file.write_bytes(gzip.compress(idx_bytes(np.zeros((0, 28, 28), np.uint8))))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(0, np.uint8))))
    refused(f"mnist:{tmp_path}", "train split is empty")


def test_a_gzip_that_unpacks_to_far_more_than_it_claims_is_not_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(idx_bytes(np.zeros(10, np.uint8)) + b"\0" * 50_000_000))
    with pytest.raises(DataError, match="has more"):
        idx_module.read_idx(bomb, dimensions=1)
