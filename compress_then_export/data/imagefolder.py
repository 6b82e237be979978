"""``imagefolder:DIR``: one folder a class under train/ and val/ (or test/), read while training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compress_then_export.data.errors import DataError
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.split import StreamSplit

_IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_DEFAULT_SIZE = (224, 224)
# ImageNet's evaluation: the shorter side 256 for a 224 crop.
_RESIZE_RATIO = 256 / 224
_TEST_FOLDERS = ("val", "test", "valid", "validation")


@dataclass(frozen=True, kw_only=True)
class ImageTransforms:
    """Pillow image -> uint8 [3, H, W]: a random resized crop and flip in training, else the middle.

    Attributes:
        height: of the result, in pixels.
        width: likewise.
    """

    height: int
    width: int

    def __call__(self, image: Any, augment: bool) -> torch.Tensor:
        """Return the transformed image; randomness comes from torch's global state."""
        from compress_then_export.vision import torchvision

        v2 = torchvision.transforms.v2
        size = (self.height, self.width)
        if augment:
            steps = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        else:
            shorter = round(min(size) * _RESIZE_RATIO)
            steps = [v2.Resize(shorter, antialias=True), v2.CenterCrop(size)]
        result: torch.Tensor = v2.Compose([v2.PILToTensor(), *steps])(image.convert("RGB"))
        return result


def open_imagefolder(request: Request) -> Opened:
    """Open DIR/train and DIR/val (or test), each with one folder a class.

    Images come at the model's input size (224x224 if it does not say), normalised with ImageNet's mean and
    std unless the recipe gives others. `workers` processes read them.

    Raises:
        DataError: a folder is missing or empty, a class has no images, or the splits differ in classes.
    """
    root = Path(request.place)
    train_folder = root / "train"
    test_folder = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        raise DataError(f"data imagefolder: {root} must hold train/ and val/ (or test/) with one folder a class")
    if request.input_shape is not None and request.input_shape[0] != 3:
        raise DataError(
            f"data imagefolder gives RGB images but the model takes {request.input_shape[0]} channels; "
            "set model args in_channels: 3"
        )
    height, width = request.input_shape[1:] if request.input_shape else _DEFAULT_SIZE
    workers = int(request.options.get("workers", 0))
    prepare = ImageTransforms(height=height, width=width)
    folders = [_image_folder(train_folder), _image_folder(test_folder)]
    if folders[0].classes != folders[1].classes:
        odd = sorted(set(folders[0].classes) ^ set(folders[1].classes))
        raise DataError(f"data imagefolder: {train_folder} and {test_folder} differ in classes: {', '.join(odd[:3])}")
    splits = [
        StreamSplit(
            items=folder,
            indices=range(len(folder)),
            prepare=prepare,
            shape=(3, height, width),
            workers=workers,
        )
        for folder in folders
    ]
    return Opened(
        train=splits[0],
        test=splits[1],
        num_classes=len(folders[0].classes),
        class_names=tuple(folders[0].classes),
        normalisation=_IMAGENET,
    )


def _image_folder(folder: Path) -> Any:
    from compress_then_export.vision import torchvision

    try:
        return torchvision.datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:  # no class folder at all, or one without images
        reason = str(error).splitlines()[0].rstrip(". ")
        raise DataError(f"data imagefolder: {folder} is not one folder of images a class: {reason}") from error
