"""Mean and standard deviation per channel: measuring them and dividing by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_LEAST_STD = 1e-3


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Brings images to (x - mean) / std per channel; uint8 images are divided by 255 first.

    Attributes:
        mean: one value a channel, in units of the 0..1 image.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, C, H, W] for uint8 or float images [N, C, H, W]."""
        largest = 255.0 if images.dtype == torch.uint8 else 1.0
        scale = torch.tensor([1.0 / (largest * std) for std in self.std]).view(1, -1, 1, 1)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)])
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift.view(1, -1, 1, 1))


def measure(images: torch.Tensor) -> Normalisation:
    """Return the per-channel mean and standard deviation of images [N, C, H, W], accumulated in float64."""
    count = images.shape[0] * images.shape[2] * images.shape[3]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros(images.shape[1], dtype=torch.float64)
    for chunk in torch.split(images, 1024):
        values = chunk.double() / (255.0 if images.dtype == torch.uint8 else 1.0)
        total += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(_LEAST_STD)
    # Seven digits survive JSON unchanged and do not depend on the order in which a platform adds up.
    return Normalisation(mean=_rounded(mean), std=_rounded(std))


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 7) for value in values)
