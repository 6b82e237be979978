"""Random shifts and mirroring of whole batches held as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Every image is shifted by up to `shift` pixels each way and perhaps mirrored left to right.

    A shift is a crop out of the padded image: the standard augmentation of CIFAR (4 pixels, mirrored).

    Attributes:
        shift: largest shift in pixels, horizontally and vertically.
        mirror: whether half of the images are mirrored.
        fill: value of the pixels shifted in, in the units of the stored images.
    """

    shift: int
    mirror: bool
    fill: float = 0.0

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return augmented images of the same shape [N, C, H, W] and type; randomness comes from rng only."""
        count, _, height, width = images.shape
        offsets = torch.from_numpy(rng.integers(0, 2 * self.shift + 1, size=(2, count, 1)))
        rows = offsets[0] + torch.arange(height)
        columns = torch.arange(width).expand(count, width)
        if self.mirror:
            mirrored = torch.from_numpy(rng.random(count) < 0.5)
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        columns = columns + offsets[1]
        padded = F.pad(images, (self.shift,) * 4, value=self.fill) if self.shift else images
        # Channels last while gathering: one index operation moves whole pixels.
        pixels = padded.permute(0, 2, 3, 1)
        picked = pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2).contiguous()
