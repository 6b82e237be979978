"""``patches``: which of ten photographs does this 32x32 crop come from?

The photographs ship inside the wheels of scikit-image and scikit-learn, so nothing is downloaded. Each is cut
into square cells with a margin between them; some cells give test crops only, the others training crops only,
so no pixel is in both. Every crop loses most of its mean colour and some of its contrast, and gains noise:
what is left to recognise is mainly texture and shape. Crops are drawn once, from a fixed seed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.split import TensorSplit

PHOTOGRAPHS: tuple[tuple[str, str], ...] = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
CROP = 32
"""Side of a crop in pixels."""
CELL = 40
"""Side of a cell in pixels."""
MARGIN = 2
"""Pixels along each edge of a cell that belong to no crop; neighbouring cells lie twice this apart."""
MID_GREY = 128
"""The value that crops are centred on; also what augmentation pads with."""
_SEED = 1797
# Difficulty, measured: with these a dense ResNet-20 lands in the range that docs/models-and-data.md gives.
_MEAN_COLOUR_KEPT = 0.25
_CONTRAST = (0.7, 1.0)
_NOISE = 8.0
# Sky and blurred background look alike in every photograph; a crop needs some structure to have an answer.
_LEAST_DEVIATION = 6.0
_TRIES = 200

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The pixels of one cell that crops may use: rows top to bottom, columns left to right, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


def open_patches(request: Request) -> Opened:
    """Draw the crops; `train_size` and `test_size` (multiples of ten) say how many."""
    options = request.options
    train, test = load_patches(train_size=options.get("train_size", 10_000), test_size=options.get("test_size", 2_000))
    return Opened(
        train=train,
        test=test,
        num_classes=len(PHOTOGRAPHS),
        class_names=tuple(Path(path).stem for _, path in PHOTOGRAPHS),
        augmentation=Augmentation(shift=4, mirror=True, fill=MID_GREY),
    )


def load_patches(*, train_size: int = 10_000, test_size: int = 2_000) -> tuple[TensorSplit, TensorSplit]:
    """Return (train, test) with uint8 crops [N, 3, 32, 32], balanced over ten classes.

    Raises:
        DataError: a size is no multiple of ten, or a photograph is missing from the installed packages.
    """
    return _draw(train_size, "train"), _draw(test_size, "test")


def cells(height: int, width: int, split: str) -> list[Cell]:
    """Return the cells of an image of this size that belong to a split ("train" or "test").

    One cell in five is a test cell, spread like knight's moves so that each part of the picture gives some.
    """
    chosen = []
    for row in range(height // CELL):
        for column in range(width // CELL):
            if ((2 * row + column) % 5 == 0) == (split == "test"):
                top, left = row * CELL + MARGIN, column * CELL + MARGIN
                inner = CELL - 2 * MARGIN
                chosen.append(Cell(top=top, left=left, bottom=top + inner, right=left + inner))
    return chosen


def _draw(size: int, split: str) -> TensorSplit:
    classes = len(PHOTOGRAPHS)
    if not isinstance(size, int) or size < classes or size % classes:
        raise DataError(f"data {split}_size={size!r} must be a multiple of {classes}, at least {classes}")
    crops = np.empty((size, CROP, CROP, 3), np.uint8)
    labels = np.arange(size, dtype=np.int64) % classes
    for label, (package, path) in enumerate(PHOTOGRAPHS):
        photograph = _read(package, path)
        places = cells(photograph.shape[0], photograph.shape[1], split)
        rng = np.random.default_rng([_SEED, label, split == "test"])
        for index in range(label, size, classes):
            crops[index] = _degrade(_find_crop(photograph, places, rng), rng)
    images = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))
    return TensorSplit(images=images, labels=torch.from_numpy(labels))


def _find_crop(photograph: Bytes, places: list[Cell], rng: np.random.Generator) -> Bytes:
    crop = photograph
    for _ in range(_TRIES):
        cell = places[rng.integers(len(places))]
        top = rng.integers(cell.top, cell.bottom - CROP + 1)
        left = rng.integers(cell.left, cell.right - CROP + 1)
        crop = photograph[top : top + CROP, left : left + CROP]
        if crop.mean(axis=2).std() >= _LEAST_DEVIATION:
            break
    return crop


def _degrade(crop: Bytes, rng: np.random.Generator) -> Bytes:
    values = crop.astype(np.float64) - MID_GREY
    colour = values.mean(axis=(0, 1))
    values = rng.uniform(*_CONTRAST) * (values - colour) + _MEAN_COLOUR_KEPT * colour
    values += rng.normal(0.0, _NOISE, values.shape)
    rounded: Bytes = np.clip(np.rint(values + MID_GREY), 0, 255).astype(np.uint8)
    return rounded


def _read(package: str, path: str) -> Bytes:
    from PIL import Image

    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise DataError(f"data source 'patches' needs the package {package!r}, which is not installed")
    file = Path(next(iter(folders))) / path
    if not file.is_file():
        raise DataError(f"data source 'patches': the installed {package!r} has no file {path}; expected {file}")
    with Image.open(file) as image:
        pixels: Bytes = np.array(image.convert("RGB"), dtype=np.uint8)
    return pixels
