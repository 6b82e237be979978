"""A data set as the command sees it: two splits, their shape and classes, and loaders over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.errors import DataError
from compress_then_export.data.loader import Loader
from compress_then_export.data.normalisation import Normalisation
from compress_then_export.data.split import NormalisedItems, Split

SplitName = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An opened data set.

    Attributes:
        source: as written in the recipe.
        num_classes: labels are 0..num_classes-1.
        input_shape: (channels, height, width) of every image that a loader gives.
        class_names: one name a class, or None where the source has none.
        normalisation: mean and std that loaders apply.
        train, test: the splits, images not yet normalised.
        augmentation: of images in memory; None for streams, which bring their own.
        augment: whether the training loader augments unless told otherwise.
        seed: of loaders that are given none.
    """

    source: str
    num_classes: int
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None
    normalisation: Normalisation
    train: Split
    test: Split
    augmentation: Augmentation | None
    augment: bool
    seed: int

    def split(self, name: SplitName) -> Split:
        """Return a split by name.

        Raises:
            DataError: it is neither "train" nor "test".
        """
        if name not in ("train", "test"):
            raise DataError(f"split={name!r} must be 'train' or 'test'")
        return self.train if name == "train" else self.test

    def loader(
        self,
        split: SplitName,
        *,
        batch_size: int = 128,
        seed: int | None = None,
        epoch: int = 0,
        augment: bool | None = None,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
    ) -> Loader:
        """Return batches of a split, deterministic by (seed, epoch).

        Args:
            split: "train" or "test".
            batch_size: items a batch.
            seed: of order and augmentation; the data set's own by default.
            epoch: the one that plain iteration gives; ``loader.epoch(e)`` gives any other.
            augment: by default only for training, and only if the recipe does not switch it off.
            shuffle: by default only for training.
            drop_last: leave out an incomplete last batch; by default for training, if a full batch exists.

        Raises:
            DataError: an unknown split, or a batch_size, seed or epoch out of range.
        """
        items = self.split(split)
        seed = self.seed if seed is None else seed
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("epoch", epoch, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise DataError(f"{name}={value!r} must be a whole number of at least {least}")
        training = split == "train"
        return Loader(
            split=items,
            normalisation=self.normalisation,
            num_classes=self.num_classes,
            batch_size=batch_size,
            seed=seed,
            start_epoch=epoch,
            shuffle=training if shuffle is None else shuffle,
            drop_last=training and len(items) >= batch_size if drop_last is None else drop_last,
            augment=training and self.augment if augment is None else augment,
            augmentation=self.augmentation,
        )

    def items(self, split: SplitName) -> NormalisedItems:
        """Return a split as a torch map-style data set of (normalised image, label), without augmentation."""
        return NormalisedItems(self.split(split), self.normalisation)

    def sample(self, split: SplitName, count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw items without replacement: (inputs float32 [M, C, H, W], labels int64 [M]).

        M is count, or all there are. The same seed draws the same items; they come in the order of the
        split, not augmented.
        """
        items = self.split(split)
        rng = np.random.default_rng(seed)
        positions = sorted(int(position) for position in rng.permutation(len(items))[:count])
        if not positions:
            raise DataError(f"count={count} must be at least 1")
        part = items.subset(positions)
        loader = Loader(
            split=part,
            normalisation=self.normalisation,
            num_classes=self.num_classes,
            batch_size=256,
            seed=0,
            start_epoch=0,
            shuffle=False,
            drop_last=False,
            augment=False,
            augmentation=None,
        )
        batches = list(loader)
        return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])
