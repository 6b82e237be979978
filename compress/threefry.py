"""Threefry-2x32 with 20 rounds, a counter-based random generator (Salmon et al. 2011, section 4.2).

Nothing but integer addition, rotation and exclusive or: the same bits in numpy, in torch on any device, and in the
integer operators of ONNX, and any block without the ones before it.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Words = TypeVar("Words", Tensor, NDArray[np.int64])

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF


def threefry(key: tuple[int, int], first: Words, second: Words) -> tuple[Words, Words]:
    """The two 32-bit words of every block.

    Args:
        key: two 32-bit words.
        first: int64, the first word of each counter, 0 to 2³² − 1; any shape.
        second: int64, the second word; a shape that broadcasts with ``first``.

    Returns:
        Two arrays or tensors, int64 with values below 2³², of the common shape.
    """
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    x, y = (first + schedule[0]) & _MASK, (second + schedule[1]) & _MASK
    for number in range(20):
        rotation = _ROTATIONS[number % 8]
        x = (x + y) & _MASK
        y = (((y << rotation) & _MASK) | (y >> (32 - rotation))) ^ x
        if number % 4 == 3:
            step = number // 4 + 1
            x = (x + schedule[step % 3]) & _MASK
            y = (y + schedule[(step + 1) % 3] + step) & _MASK
    return x, y
