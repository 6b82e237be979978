from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from compress_then_export.data import DataError, open_data
from compress_then_export.data import patches as patches_module
from compress_then_export.data.patches import CELL, CROP, MARGIN, PHOTOGRAPHS, cells, load_patches
from compress_then_export.models import build, builtin_names, describe


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({}, {}, ["data.source: must be one of digits", "imagefolder:DIR"]),
        ("digits", {}, ["must be a mapping"]),
        ({"source": "digit"}, {}, ["'digit'", "did you mean 'digits'"]),
        ({"source": "cifar:/x"}, {}, ["did you mean 'cifar10'"]),
        ({"source": "digits:/x"}, {}, ["takes nothing after it"]),
        ({"source": "mnist"}, {}, ["must read mnist:DIR"]),
        ({"source": "digits", "agument": False}, {}, ["data.agument: ", "did you mean 'augment'"]),
        ({"source": "digits", "workers": 2}, {}, ["data.workers: ", "no such key"]),
        ({"source": "digits", "augment": 1}, {}, ["data.augment: 1 must be", "true or false"]),
        ({"source": "digits", "train_size": 0}, {}, ["data.train_size: 0 must", "at least 1"]),
        ({"source": "digits", "train_size": True}, {}, ["data.train_size: True"]),
        ({"source": "digits", "mean": 0.5}, {}, ["data.mean: 0.5", "list"]),
        ({"source": "digits", "std": [0.0]}, {}, ["data.std: [0.0]", "positive"]),
        ({"source": "digits", "std": [float("nan")]}, {}, ["data.std: [nan]"]),
        ({"source": "digits", "mean": [0.1, 0.2]}, {}, ["mean has 2 values", "1 channels"]),
        ({"source": "patches", "train_size": 15}, {}, ["train_size=15", "multiple of 10"]),
        (
            {"source": "patches", "train_size": 10, "test_size": 10},
            {"input_shape": (1, 28, 28)},
            ["3x32x32", "1x28x28", "resize: true"],
        ),
        (
            {"source": "patches", "train_size": 10, "test_size": 10},
            {"input_shape": (1, 28, 28), "fixed_size": False},
            ["in_channels: 3"],
        ),
    ],
)
def test_errors_are_one_line_and_name_the_way_out(spec: Any, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        open_data(spec, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_digits_split_is_fixed_stratified_and_complete() -> None:
    from sklearn.datasets import load_digits

    data = open_data({"source": "digits"}, seed=5)
    assert data.input_shape == (1, 8, 8) and data.num_classes == 10 and data.seed == 5
    assert (len(data.train), len(data.test)) == (1438, 359)
    shares = data.test.labels.bincount() / (data.train.labels.bincount() + data.test.labels.bincount())
    assert bool(((shares - 0.2).abs() < 0.003).all())
    both = torch.cat([data.train.images, data.test.images]).flatten(1).numpy()
    original = np.rint(load_digits().data * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, original))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 12, 20)])
def test_digits_come_at_the_size_of_the_model(shape: tuple[int, int, int]) -> None:
    data = open_data({"source": "digits"}, input_shape=shape)
    inputs, labels = next(iter(data.loader("train", batch_size=32)))
    assert inputs.shape == (32, *shape) and inputs.dtype == torch.float32 and labels.dtype == torch.int64
    assert data.augmentation is not None and not data.augmentation.mirror


def test_options_that_every_source_has() -> None:
    spec = {"source": "digits", "train_size": 100, "test_size": 50, "augment": False, "mean": [0.25], "std": [2]}
    data = open_data(spec)
    assert (len(data.train), len(data.test)) == (100, 50)
    assert data.normalisation.mean == (0.25,) and data.normalisation.std == (2.0,)
    assert len(set(data.train.labels.tolist())) == 10
    plain = next(iter(data.loader("train", batch_size=100, shuffle=False)))[0]
    torch.testing.assert_close(plain, (data.train.images / 255 - 0.25) / 2)
    again = open_data(spec, seed=9)
    assert torch.equal(again.train.images, data.train.images)
    partly = open_data({"source": "digits", "mean": [0.0]})
    assert partly.normalisation.mean == (0.0,)
    assert partly.normalisation.std == open_data({"source": "digits"}).normalisation.std


def test_photographs_are_cut_into_disjoint_regions() -> None:
    for package, path in PHOTOGRAPHS:
        photograph = patches_module._read(package, path)
        height, width = photograph.shape[:2]
        owner = np.zeros((height, width), dtype=np.int8)
        for mark, split in ((1, "train"), (2, "test")):
            for cell in cells(height, width, split):
                assert cell.bottom - cell.top == cell.right - cell.left == CELL - 2 * MARGIN >= CROP
                region = owner[cell.top : cell.bottom, cell.left : cell.right]
                assert not region.any()
                region[:] = mark
        assert (owner == 2).sum() * 3 < (owner == 1).sum() < (owner == 2).sum() * 5
        # No test pixel lies within twice the margin of a training pixel.
        grown = owner == 1
        for _ in range(2 * MARGIN):
            grown[1:] |= grown[:-1].copy()
            grown[:-1] |= grown[1:].copy()
            grown[:, 1:] |= grown[:, :-1].copy()
            grown[:, :-1] |= grown[:, 1:].copy()
        assert not (grown & (owner == 2)).any()


def test_crops_stay_inside_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    # A photograph whose pixels name their region: training pixels are dark, test pixels bright.
    photograph = np.zeros((300, 300, 3), dtype=np.uint8)
    photograph[::2, ::2] = 60  # structure, or the crop would be rejected
    for cell in cells(300, 300, "test"):
        photograph[cell.top : cell.bottom, cell.left : cell.right] += 100
    monkeypatch.setattr(patches_module, "_read", lambda package, path: photograph)
    monkeypatch.setattr(patches_module, "_degrade", lambda crop, rng: crop)
    train, test = load_patches(train_size=500, test_size=200)
    assert int(train.images.max()) == 60 and int(test.images.min()) == 100


def test_patches_are_balanced_centred_and_the_same_every_time() -> None:
    spec = {"source": "patches", "train_size": 200, "test_size": 100}
    data = open_data(spec, input_shape=(3, 32, 32), seed=1)
    again = open_data(spec, input_shape=(3, 32, 32), seed=2)
    assert torch.equal(data.train.images, again.train.images)
    assert torch.equal(data.test.images, again.test.images)
    assert data.train.labels.bincount().tolist() == [20] * 10
    assert data.test.labels.bincount().tolist() == [10] * 10
    assert data.train.images.shape == (200, 3, 32, 32) and data.train.images.dtype == torch.uint8
    means = data.train.images.float().mean(dim=(2, 3))
    assert bool(((means - 128).abs() < 36).all()), "the mean colour must tell little"
    assert data.class_names is not None and data.class_names[1] == "chelsea"
    assert data.augmentation is not None and data.augmentation.fill == 128
    assert open_data({**spec, "resize": True}, input_shape=(1, 28, 28)).input_shape == (1, 28, 28)


def test_missing_photograph_says_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches_module, "PHOTOGRAPHS", (("skimage", "data/none.png"),) * 10)
    with pytest.raises(DataError, match=r"'skimage' has no file data/none.png"):
        load_patches(train_size=10, test_size=10)
    monkeypatch.setattr(patches_module, "PHOTOGRAPHS", (("no_such_package", "a.png"),) * 10)
    with pytest.raises(DataError, match="needs the package 'no_such_package'"):
        load_patches(train_size=10, test_size=10)


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "wrn28-10"])
def test_digits_fit_every_builtin(name: str) -> None:
    source = f"builtin:{name}"
    info = describe(source)
    data = open_data({"source": "digits"}, input_shape=info.input_shape, fixed_size=info.fixed_size)
    model = build(source, num_classes=data.num_classes, in_channels=data.input_shape[0])
    inputs, labels = next(iter(data.loader("train", batch_size=4)))
    assert model(inputs).shape == (4, 10) and int(labels.max()) < 10


def test_import_is_cheap() -> None:
    code = (
        "import sys, compress_then_export.data, compress_then_export.models\n"
        "heavy = {'sklearn', 'skimage', 'torchvision', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_dense_resnet20_lands_in_the_wanted_range_on_patches() -> None:
    """Twelve epochs of the standard training; about ten minutes on one core."""
    data = open_data({"source": "patches"}, input_shape=(3, 32, 32))
    loader = data.loader("train", batch_size=128)
    torch.manual_seed(0)
    model = build("builtin:resnet20", num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 * len(loader))
    for epoch in range(12):
        for inputs, labels in loader.epoch(epoch):
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.loader("test", batch_size=250))
    assert 0.85 <= right / len(data.test) <= 0.95
