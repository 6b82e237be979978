"""Images in memory brought to another size or number of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from compress_then_export.data.errors import DataError

_LARGEST_BYTES = 4 * 2**30
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts to grey


def resize(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return images [N, *shape] of the same type: bilinear with antialiasing, grey <-> RGB where needed.

    Args:
        images: uint8 or float32 [N, C, H, W].
        shape: wanted (channels, height, width).

    Raises:
        DataError: the channels cannot be converted, or the result would not fit in 4 GiB.
    """
    channels, height, width = shape
    count = images.shape[0]
    size_bytes = count * channels * height * width * images.element_size()
    if size_bytes > _LARGEST_BYTES:
        raise DataError(
            f"data resize: {count} images of {channels}x{height}x{width} take {size_bytes / 2**30:.1f} GiB; "
            "lower train_size or use an image folder"
        )
    if images.shape[1] != channels and (images.shape[1], channels) not in ((1, 3), (3, 1)):
        raise DataError(f"data resize: cannot make {channels} channels out of {images.shape[1]}")
    result = torch.empty(count, channels, height, width, dtype=images.dtype)
    for start in range(0, count, 1024):
        chunk = images[start : start + 1024].float()
        if chunk.shape[1] == 3 and channels == 1:
            chunk = (chunk * torch.tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        if chunk.shape[2:] != (height, width):
            chunk = F.interpolate(chunk, size=(height, width), mode="bilinear", antialias=True)
        if not images.is_floating_point():
            chunk = chunk.round().clamp(0, 255)
        result[start : start + 1024] = chunk.to(images.dtype)  # one channel spreads over three
    return result
