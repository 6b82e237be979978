"""Threefry-2x32 with 20 rounds, once in numpy and once as nodes of an ONNX graph.

Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3. The second word of the key is 0 here: the
counter names the block and the tensor, so one evaluation serves all tensors of a network.

The nodes compute in INT32, since OpenVINO 2026.4 knows no other integers when it runs a graph: it clamps UINT32
constants, and its BitShift is wrong. A rotation is a product and a quotient by powers of two; no quotient has more
than 24 bits, because OpenVINO divides integers as float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_ROUNDS = 20
_PARITY = 0x1BD11BDA
# Rotations that the nodes make out of two, for the sake of quotients of at most 24 bits.
_IN_TWO = {26: (13, 13), 29: (13, 16)}

Words = NDArray[np.uint32]


def threefry(key: tuple[int, int], counter: tuple[Words, Words]) -> tuple[Words, Words]:
    """Return the two words of each block.

    Args:
        key: Two 32-bit words.
        counter: Two uint32 arrays of shapes that broadcast.
    """
    schedule = [np.uint32(word) for word in (*key, key[0] ^ key[1] ^ _PARITY)]
    x0, x1 = counter[0] + schedule[0], counter[1] + schedule[1]
    for number in range(_ROUNDS):
        rotation = np.uint32(_ROTATIONS[number % 8])
        x0 = x0 + x1
        x1 = ((x1 << rotation) | (x1 >> (np.uint32(32) - rotation))) ^ x0
        if number % 4 == 3:
            step = number // 4 + 1
            x0 = x0 + schedule[step % 3]
            x1 = x1 + schedule[(step + 1) % 3] + np.uint32(step)
    return x0, x1


def threefry_nodes(
    seed: int, x0: str, x1: str, operator: Callable[[str, str, str], str], constant: Callable[[int], str]
) -> tuple[str, str]:
    """Append the nodes of all rounds with the key (``seed``, 0), in INT32.

    Args:
        seed: The first word of the key.
        x0: Name of the first counter, plus ``seed`` already.
        x1: Name of the second counter.
        operator: Appends a node of an operator with two inputs and returns the name of its output.
        constant: Returns the name of a scalar that holds 32 bits.

    Returns:
        The names of the two words.
    """
    schedule = (seed, 0, seed ^ _PARITY)

    def rotated(word: str, rotation: int) -> str:
        # Only the upper bits, so that the quotient has no rest; those of a negative word come with a sign.
        upper = operator("BitwiseAnd", word, constant(-(1 << (32 - rotation))))
        right = operator("Mod", operator("Div", upper, constant(1 << (32 - rotation))), constant(1 << rotation))
        return operator("Add", operator("Mul", word, constant(1 << rotation)), right)

    for number in range(_ROUNDS):
        x0 = operator("Add", x0, x1)
        rotation = _ROTATIONS[number % 8]
        for part in _IN_TWO.get(rotation, (rotation,)):
            x1 = rotated(x1, part)
        x1 = operator("BitwiseXor", x1, x0)
        if number % 4 == 3:
            step = number // 4 + 1
            if schedule[step % 3]:
                x0 = operator("Add", x0, constant(schedule[step % 3]))
            x1 = operator("Add", x1, constant(schedule[(step + 1) % 3] + step))
    return x0, x1
