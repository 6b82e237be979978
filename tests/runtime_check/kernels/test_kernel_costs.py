"""Which layers pay: by sparsity, by size, and by what stands beside them."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_files import network, open_model, sparse
from onnx import helper

RNG = np.random.default_rng(8)


def claimed(
    c: int, k: int, kernel: int, density: float, *, size: int = 14, depthwise: bool = False, **settings: str
) -> bool:
    """Whether a convolution is claimed; with `depthwise`, between two depthwise ones."""
    constants = {"w": sparse(RNG, k, c, kernel, kernel, density=density)}
    nodes = [helper.make_node("Conv", ["x" if not depthwise else "a", "w"], ["c"], pads=[kernel // 2] * 4)]
    if depthwise:
        constants |= {"before": sparse(RNG, c, 1, 3, 3, density=1), "after": sparse(RNG, k, 1, 3, 3, density=1)}
        nodes.insert(0, helper.make_node("Conv", ["x", "before"], ["p"], group=c, pads=[1] * 4))
        nodes.insert(1, helper.make_node("Clip", ["p", "zero", "six"], ["a"]))
        nodes += [helper.make_node("Conv", ["c", "after"], ["d"], group=k, pads=[1] * 4)]
        constants |= {"zero": np.float32(0), "six": np.float32(6)}
    nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["y"]))
    opened = open_model(network(nodes, constants, {"x": ["n", c, size, size]}), claim="sparse", **settings)
    (layer,) = [layer for layer in opened.layers if layer.weights == c * k * kernel**2]
    return layer.claimed


@pytest.mark.parametrize("kernel", [1, 3])
def test_from_some_sparsity_on_a_layer_is_claimed(kernel: int) -> None:
    found = [claimed(64, 64, kernel, density) for density in (1, 0.7, 0.55, 0.4, 0.2, 0.1, 0.02)]
    assert found == sorted(found)
    assert found[:3] == [False] * 3
    assert found[-3:] == [True] * 3


def test_beside_depthwise_layers_it_takes_more_zeros() -> None:
    assert claimed(32, 64, 1, 0.4)
    assert not claimed(32, 64, 1, 0.4, depthwise=True)
    assert claimed(32, 64, 1, 0.1, depthwise=True)


def test_huge_tensors_that_would_be_laid_out_anew_stay() -> None:
    assert not claimed(16, 96, 1, 0.1, size=112, depthwise=True)
    assert claimed(16, 96, 1, 0.1, size=28, depthwise=True)


def test_without_vector_instructions_it_takes_more_zeros() -> None:
    assert claimed(64, 64, 3, 0.3)
    assert not claimed(64, 64, 3, 0.3, instructions="generic")
    assert claimed(64, 64, 3, 0.1, instructions="generic")
