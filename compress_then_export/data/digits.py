"""``digits``: scikit-learn's 1797 handwritten digits, shipped with the package."""

from __future__ import annotations

import numpy as np
import torch

from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.opened import Opened, Request
from compress_then_export.data.resize import resize
from compress_then_export.data.split import TensorSplit

_TEST_SHARE = 0.2
_SEED = 1797


def open_digits(request: Request) -> Opened:
    """Open the digits at the size that the model takes (8x8 grey otherwise).

    One fifth of each class is the test split (fixed, stratified: 1438 training and 359 test images).
    Augmentation is a small shift, one pixel in fourteen; digits are never mirrored.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The values are counts 0..16; 255/16 brings them to the bytes that other sources hold.
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    shape = request.input_shape or (1, 8, 8)
    images = resize(images, shape)
    labels = np.asarray(bunch.target, dtype=np.int64)
    rng = np.random.default_rng(_SEED)
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        is_test[members[: round(_TEST_SHARE * len(members))]] = True
    everything = TensorSplit(images=images, labels=torch.from_numpy(labels))
    return Opened(
        train=everything.subset(np.flatnonzero(~is_test).tolist()),
        test=everything.subset(np.flatnonzero(is_test).tolist()),
        num_classes=10,
        class_names=tuple("0123456789"),
        augmentation=Augmentation(shift=max(1, shape[1] // 14), mirror=False),
    )
