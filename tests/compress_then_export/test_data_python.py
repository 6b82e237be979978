from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from data_checks import refused

from compress_then_export.data import Dataset, open_data


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_data.py").write_text(
        "import numpy as np, torch\n"
        "class Items(torch.utils.data.Dataset):\n"
        "    classes = ('x', 'y', 'z')\n"
        "    def __init__(self, n, shape=(1, 4, 4)):\n"
        "        self.n, self.shape = n, shape\n"
        "    def __len__(self):\n        return self.n\n"
        "    def __getitem__(self, i):\n"
        "        return np.full(self.shape, i / 10, dtype=np.float64), i % 3\n"
        "def make(n=6):\n    return Items(n), Items(4)\n"
        "def unlike():\n    return Items(6), Items(4, (1, 5, 5))\n"
        "def flat():\n    return Items(6, (4,)), Items(4, (4,))\n"
        "def lists():\n    pairs = [(torch.zeros(1, 2, 2), 0)]\n    return pairs, pairs\n"
        "def one():\n    return Items(3)\n"
        "def endless():\n    return iter([]), iter([])\n"
        "def broken():\n    raise RuntimeError('no disk\\nmore')\n"
        "def whole():\n"
        "    from compress_then_export.data import open_data\n"
        "    return open_data({'source': 'digits'})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "their_data", raising=False)
    return "python:their_data:"


def test_python_data(package: str) -> None:
    data = open_data({"source": package + "make", "args": {"n": 9}}, input_shape=(1, 4, 4))
    assert data.num_classes == 3 and data.input_shape == (1, 4, 4) and (len(data.train), len(data.test)) == (9, 4)
    inputs, labels = next(iter(data.loader("test")))
    assert inputs.dtype == torch.float32 and labels.tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(inputs[:, 0, 0, 0], torch.arange(4) / 10)
    assert len(open_data({"source": package + "make", "train_size": 2}).train) == 2
    assert open_data({"source": package + "lists", "num_classes": 2}).num_classes == 2
    whole = open_data({"source": package + "whole"}, input_shape=(1, 8, 8))
    assert isinstance(whole, Dataset) and whole.source == "digits"


@pytest.mark.parametrize(
    ("factory", "keys", "words"),
    [
        ("maek", {}, ["no 'maek'", "did you mean 'make'"]),
        ("make", {"args": {"m": 1}}, ["cannot be made", "'m'"]),
        ("make", {"args": [1]}, ["args must map"]),
        ("make", {"args": {"n": 0}}, ["train data is empty"]),
        ("unlike", {}, ["1x4x4", "1x5x5"]),
        ("flat", {}, ["train images are (4,)"]),
        ("lists", {}, ["set data num_classes"]),
        ("one", {}, ["must return (train, test), got Items"]),
        ("endless", {}, ["map-style"]),
        ("broken", {}, ["cannot be made: no disk"]),
    ],
)
def test_python_errors(package: str, factory: str, keys: dict[str, Any], words: list[str]) -> None:
    refused(package + factory, *words, **keys)


def test_python_data_against_another_model(package: str) -> None:
    refused(package + "make", "1x4x4", "1x28x28", options={"input_shape": (1, 28, 28)})
    refused(package + "whole", "1x8x8", "3x32x32", options={"input_shape": (3, 32, 32)})
    refused("python:no_such_thing:make", "no module 'no_such_thing'")
