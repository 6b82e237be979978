"""Batches whose content depends on (seed, epoch) alone, so a run can go on at any epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.split import Item, Split, StreamSplit, TensorSplit, combined_seed

Batch = tuple[torch.Tensor, torch.Tensor]

_ORDER, _AUGMENT = 0, 1  # separate random streams, so that switching one on does not change the other


@dataclass(frozen=True, kw_only=True, eq=False)
class Loader:
    """An iterable of batches (inputs float32 [B, C, H, W], labels int64 [B]); iterating again repeats it.

    ``loader.epoch(e)`` gives the batches of epoch e: their order and augmentation depend on (seed, e) alone,
    never on what was read before or on torch's random state. Iterating the loader gives epoch `start_epoch`.

    Attributes:
        split: where items come from.
        normalisation: applied to every image, after augmentation.
        num_classes: labels must lie below it.
        batch_size: items a batch; the last one may be smaller unless drop_last.
        augment: whether images are augmented.
        augmentation: how images in memory are augmented; streamed ones bring their own.
    """

    split: Split
    normalisation: Normalisation
    num_classes: int
    batch_size: int
    seed: int
    start_epoch: int
    shuffle: bool
    drop_last: bool
    augment: bool
    augmentation: Augmentation | None

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    @property
    def samples(self) -> int:
        """Items an epoch, without those that drop_last leaves out."""
        return min(len(self) * self.batch_size, len(self.split))

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(self.start_epoch)

    def at(self, epoch: int) -> Loader:
        """Return this loader with another start_epoch."""
        return replace(self, start_epoch=epoch)

    def order(self, epoch: int) -> list[int]:
        """Return the positions of epoch e's items in the split, in the order in which they come."""
        if not self.shuffle:
            return list(range(self.samples))
        rng = np.random.default_rng([self.seed, epoch, _ORDER])
        return [int(position) for position in rng.permutation(len(self.split))[: self.samples]]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of epoch `number`, counted from 0.

        Raises:
            DataError: an item cannot be read, a label is out of range, or an image has NaN values.
        """
        if number < 0:
            raise DataError(f"epoch={number} must be 0 or more")
        order = self.order(number)
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        if isinstance(self.split, TensorSplit):
            return self._tensor_batches(self.split, batches, number)
        return self._stream_batches(self.split, batches, number)

    def _tensor_batches(self, split: TensorSplit, batches: list[list[int]], epoch: int) -> Iterator[Batch]:
        for index, positions in enumerate(batches):
            chosen = torch.tensor(positions)
            images = split.images[chosen]
            if self.augment and self.augmentation is not None:
                images = self.augmentation(images, np.random.default_rng([self.seed, epoch, _AUGMENT, index]))
            yield self.normalisation(images), split.labels[chosen]

    def _stream_batches(self, split: StreamSplit, batches: list[list[int]], epoch: int) -> Iterator[Batch]:
        items = _EpochItems(split, augment=self.augment, seed=combined_seed(self.seed, epoch, _AUGMENT))
        loader: DataLoader[Item] = DataLoader(
            items,
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=split.workers,
            generator=torch.Generator().manual_seed(self.seed),  # or DataLoader draws from the global state
        )
        for images, labels in cast("Iterator[Batch]", iter(loader)):
            self._check(images, labels)
            yield self.normalisation(images), labels

    def _check(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        if int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
            raise DataError(f"data: a label lies outside 0..{self.num_classes - 1}; set data num_classes")
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            raise DataError("data: an image has NaN or infinite values; clean the data")


class _EpochItems(MapDataset[Item]):
    """The items of one epoch, each with its own augmentation seed; picklable for worker processes."""

    def __init__(self, split: StreamSplit, *, augment: bool, seed: int) -> None:
        self._split = split
        self._augment = augment
        self._seed = seed

    def __getitem__(self, position: int) -> Item:
        seed = combined_seed(self._seed, position)
        return self._split.read(position, augment=self._augment, seed=seed)


def _collate(items: list[Any]) -> Batch:
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)
