from __future__ import annotations

from pathlib import Path

import pytest
import torch
from data_checks import random_bytes, refused
from PIL import Image

from compress_then_export.data import DataError, open_data
from compress_then_export.vision import torchvision


def write_images(root: Path, *, folders: tuple[str, str] = ("train", "val"), classes: str = "ab") -> Path:
    for folder, count in zip(folders, (4, 2), strict=True):
        for index, name in enumerate(classes):
            (root / folder / name).mkdir(parents=True)
            for number in range(count):
                # The left half has the colour of the class, so that crops and flips can be told apart.
                pixels = random_bytes(number, 40, 60, 3) // 8
                pixels[:, :30, index] = 250
                Image.fromarray(pixels).save(root / folder / name / f"{number}.png")
    return root


@pytest.mark.parametrize("folders", [("train", "val"), ("train", "test")])
def test_imagefolder(tmp_path: Path, folders: tuple[str, str]) -> None:
    data = open_data({"source": f"imagefolder:{write_images(tmp_path, folders=folders)}"}, input_shape=(3, 24, 16))
    assert data.class_names == ("a", "b") and data.num_classes == 2 and data.input_shape == (3, 24, 16)
    assert (len(data.train), len(data.test)) == (8, 4)
    assert data.normalisation.mean == (0.485, 0.456, 0.406)
    loader = data.loader("train", batch_size=4)
    first, labels = next(loader.epoch(0))
    assert first.shape == (4, 3, 24, 16) and first.dtype == torch.float32 and labels.dtype == torch.int64
    assert torch.equal(first, next(loader.epoch(0))[0])
    assert not torch.equal(first, next(loader.epoch(1))[0])
    assert open_data({"source": f"imagefolder:{tmp_path}"}).input_shape == (3, 224, 224)


def test_imagefolder_evaluation_is_resize_and_centre_crop(tmp_path: Path) -> None:
    write_images(tmp_path)
    spec = {"source": f"imagefolder:{tmp_path}", "mean": [0, 0, 0], "std": [1, 1, 1]}
    data = open_data(spec, input_shape=(3, 28, 28))
    inputs, _ = data.sample("test", 1000)
    v2 = torchvision.transforms.v2
    path = tmp_path / "val" / "a" / "0.png"
    image = v2.functional.pil_to_tensor(Image.open(path))
    expected = v2.CenterCrop(28)(v2.Resize(32, antialias=True)(image)).float() / 255
    torch.testing.assert_close(inputs[0], expected)


def test_imagefolder_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    write_images(tmp_path)
    Image.new("L", (50, 50), 100).save(tmp_path / "train" / "a" / "0.png")
    Image.new("RGBA", (50, 50), (1, 2, 3, 4)).save(tmp_path / "train" / "a" / "1.png")
    data = open_data({"source": f"imagefolder:{tmp_path}"}, input_shape=(3, 16, 16))
    assert sum(len(labels) for _, labels in data.loader("train", batch_size=3, drop_last=False)) == 8


def test_imagefolder_errors(tmp_path: Path) -> None:
    refused(f"imagefolder:{tmp_path}", "must hold train/ and val/")
    write_images(tmp_path)
    refused(f"imagefolder:{tmp_path}", "RGB", "in_channels: 3", options={"input_shape": (1, 28, 28)})
    refused(f"imagefolder:{tmp_path}", "data.workers: -1", workers=-1)
    (tmp_path / "val" / "b").rename(tmp_path / "val" / "c")
    refused(f"imagefolder:{tmp_path}", "differ in classes: b, c")
    for file in (tmp_path / "val" / "c").iterdir():
        file.unlink()
    refused(f"imagefolder:{tmp_path}", "is not one folder of images a class")


def test_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "val" / "a" / "1.png").write_bytes(b"\x89PNG broken")
    data = open_data({"source": f"imagefolder:{tmp_path}"}, input_shape=(3, 16, 16))
    with pytest.raises(DataError, match=r"1\.png"):
        list(data.loader("test"))
