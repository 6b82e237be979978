"""One split of a data set: in memory as tensors, or a map-style data set read item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as MapDataset

from compress_then_export.data.errors import DataError
from compress_then_export.data.normalisation import Normalisation

Item = tuple[torch.Tensor, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorSplit:
    """A split held in memory.

    Attributes:
        images: [N, C, H, W]; uint8 counts as 0..255 and is brought to 0..1, float32 is taken as it is.
        labels: int64 [N].
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: Sequence[int]) -> TensorSplit:
        """Return the items at these positions only, in this order."""
        chosen = torch.tensor(list(positions), dtype=torch.int64)
        return TensorSplit(images=self.images[chosen], labels=self.labels[chosen])


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamSplit:
    """A split read item by item, for data too large for memory.

    Attributes:
        items: map-style; item i is (whatever `prepare` takes, integer label).
        indices: the items that belong to the split.
        prepare: turns (image, augment) into a tensor [C, H, W]; its randomness is torch's, seeded per item.
        shape: (C, H, W) of every prepared image.
        workers: processes that read items; 0 reads in this process.
    """

    items: MapDataset[Any]
    indices: Sequence[int]
    prepare: Callable[[Any, bool], torch.Tensor]
    shape: tuple[int, int, int]
    workers: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, positions: Sequence[int]) -> StreamSplit:
        """Return the items at these positions only, in this order."""
        return StreamSplit(
            items=self.items,
            indices=[self.indices[position] for position in positions],
            prepare=self.prepare,
            shape=self.shape,
            workers=self.workers,
        )

    def read(self, position: int, *, augment: bool, seed: int) -> Item:
        """Read one item; the same seed gives the same augmentation, and torch's random state is left alone.

        Raises:
            DataError: the item cannot be read, is no (image, label) pair, or has another shape.
        """
        index = self.indices[position]
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                image, label = self.items[index]
                tensor = self.prepare(image, augment)
                number = int(label)
        except Exception as error:
            raise DataError(f"data item {index} cannot be read: {error}") from error
        if tuple(tensor.shape) != self.shape:
            raise DataError(f"data item {index} has shape {tuple(tensor.shape)} but item 0 has {self.shape}")
        return tensor, number


Split = TensorSplit | StreamSplit


class NormalisedItems(MapDataset[Item]):
    """A split as a torch map-style data set of normalised images without augmentation."""

    def __init__(self, split: Split, normalisation: Normalisation) -> None:
        self._split = split
        self._normalisation = normalisation

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        if isinstance(self._split, StreamSplit):
            image, label = self._split.read(index % len(self), augment=False, seed=0)
        else:
            image, label = self._split.images[index], int(self._split.labels[index])
        return self._normalisation(image[None])[0], label


def combined_seed(*numbers: int) -> int:
    """Return one 63-bit seed that depends on every one of the non-negative numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))
