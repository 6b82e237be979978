from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_then_export.models import OptionA


def as_convolution(module: OptionA, x: torch.Tensor) -> torch.Tensor:
    """The oracle: a 1x1 convolution with stride whose rows are unit vectors or zero."""
    weight = torch.zeros(module.out_channels, module.in_channels, 1, 1)
    for channel, source in enumerate(module.source):
        if source >= 0:
            weight[channel, source] = 1.0
    return torch.conv2d(x, weight, stride=module.stride)


def test_fresh_shortcut_pads_half_in_front_and_half_behind() -> None:
    module = OptionA(in_channels=4, out_channels=8)
    assert module.source == (-1, -1, 0, 1, 2, 3, -1, -1)
    x = torch.randn(2, 4, 7, 6)
    y = module(x)
    assert y.shape == (2, 8, 4, 3)
    assert torch.equal(y, as_convolution(module, x))
    assert not list(module.parameters()) and not module.state_dict()
    assert "4, 8, stride=2" in repr(module)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_select_equals_selecting_rows_and_columns_of_the_convolution(data: st.DataObject) -> None:
    inputs = data.draw(st.integers(1, 6))
    outputs = data.draw(st.integers(inputs, 10))
    module = OptionA(in_channels=inputs, out_channels=outputs)
    x = torch.randn(2, inputs, 4, 4)
    for _ in range(2):
        # Removed inputs count as zero, so the oracle is the old map of an input masked that way.
        indices = st.integers(0, module.out_channels - 1)
        out_keep = data.draw(st.lists(indices, min_size=1, unique=True))
        in_keep = data.draw(st.lists(st.integers(0, module.in_channels - 1), min_size=1, unique=True))
        masked = torch.zeros_like(x)
        masked[:, in_keep] = x[:, in_keep]
        expected = as_convolution(module, masked)[:, out_keep]
        module.select(out_keep, in_keep)
        x = x[:, in_keep]
        assert (module.in_channels, module.out_channels) == (len(in_keep), len(out_keep))
        assert torch.equal(module(x), expected)
        assert torch.equal(copy.deepcopy(module)(x), expected)


def test_plain_selection_keeps_the_fast_path_and_any_other_exports() -> None:
    module = OptionA(in_channels=4, out_channels=8)
    module.select([1, 2, 4, 5, 6], [0, 2, 3])
    assert module.source == (-1, 0, 1, 2, -1) and module._gather is None
    module.select([1, 3, 0, 2], [2, 0])
    assert module.source == (1, 0, -1, -1) and module._gather is not None
    assert not module.state_dict()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.randn(2, 2, 4, 4),), dynamic_shapes=({0: batch},))
    x = torch.randn(3, 2, 6, 6)[:, :, :4, :4]
    assert torch.equal(program.module()(x), module(x))


def test_shortcut_without_new_channels_only_subsamples() -> None:
    module = OptionA(in_channels=3, out_channels=3)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(module(x), x[:, :, ::2, ::2])


@pytest.mark.parametrize(
    ("out_keep", "in_keep", "message"),
    [
        ([], [0], "out_keep is empty"),
        ([0], [], "in_keep is empty"),
        ([0, 8], [0], r"out_keep must lie in 0..7"),
        ([0], [-1], r"in_keep must lie in 0..3"),
        ([1, 1], [0], "out_keep names a channel twice"),
    ],
)
def test_bad_selections(out_keep: list[int], in_keep: list[int], message: str) -> None:
    module = OptionA(in_channels=4, out_channels=8)
    with pytest.raises(ValueError, match=message):
        module.select(out_keep, in_keep)
    assert module.out_channels == 8 and module.in_channels == 4


def test_fewer_outputs_than_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="out_channels=2"):
        OptionA(in_channels=4, out_channels=2)
