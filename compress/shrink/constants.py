"""Which input channels of a layer carry a constant, whatever the model's input.

Activations between the layers may be any Python code, so they are run, not analysed. Every layer is replaced by its
abstract meaning: an output channel whose weights are zero, or read constant channels only, gives that constant;
every other one gives noise, in pairs +n and -n of small and of huge magnitude, so that no ReLU, clip or sigmoid on
the way can hide it. What still does not vary at the input of a layer is constant by the structure of the model and
not by the accident of some inputs. Hardly a convolution is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compress.shrink.layers import (
    channel_dim,
    has_border,
    is_channelwise,
    is_fixed_map,
    is_layer,
    layer_size,
    weight_blocks,
)

SAMPLES = 8
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}

Constants = dict[str, NDArray[np.float64]]


def measure_constants(model: nn.Module, inputs: tuple[Any, ...]) -> Constants:
    """Layer name -> [inputs] the constant that each input channel carries, NaN where it varies.

    Args:
        model: a throw-away copy in eval mode; its forward methods are replaced.
        inputs: example inputs; the tensors whose first dimension is that of the first one are taken as batched.

    Raises:
        Exception: what the model raises when its batch size is changed.
    """
    noise = _Noise(next(model.parameters()).device)
    found: Constants = {}

    def record(name: str, values: Tensor) -> None:
        new = values.cpu().double().numpy()
        old = found.get(name, new)
        with np.errstate(invalid="ignore"):
            same = np.abs(old - new) <= 1e-6 * np.maximum(np.abs(old), np.abs(new))
        found[name] = np.where(same, old, np.nan)

    for name, module in list(model.named_modules()):
        fixed_map: bool = is_fixed_map(module)
        if fixed_map:
            module.register_forward_pre_hook(_recorder(name, record))
        elif is_layer(module):
            module.forward = MethodType(_abstract_forward(module, name, record, noise), module)
        elif isinstance(module, nn.PReLU) or is_channelwise(module):
            continue  # works channel by channel: run as it is
        elif next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda _m, _x, out: tree_map(noise.like, out))
    with torch.no_grad():
        model(*_noisy_batch(inputs, noise))
    return found


class _Noise:
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, shape: torch.Size, dtype: torch.dtype, channel_dim: int) -> Tensor:
        """Values of magnitude 1 to 10 and 1e3 to 1e5 (1e3 to 1e4 below float32).

        Where dimension 0 divides by `SAMPLES`, its eighths are +n, -n, +N, -N with n small and N huge, once with
        n all positive and once with a random sign per channel. The sign does not change within a sample's channel:
        a mean over saturated values of both signs could come out equal by chance.
        """
        samples = shape[0] // SAMPLES if len(shape) and shape[0] % SAMPLES == 0 else 0
        part = torch.Size((2 * samples, *shape[1:])) if samples else shape
        uniform = torch.rand(part, generator=self.generator, dtype=torch.float64)
        small, huge = 10**uniform, 10 ** (3 + (2 if dtype in _TOLERANCE else 1) * uniform)
        if not samples:  # the batch is not where it is expected: random signs, single values of either size
            sign = torch.randint(0, 2, part, generator=self.generator) * 2.0 - 1.0
            values = sign * torch.where(torch.rand(part, generator=self.generator) < 0.5, small, huge)
            return values.to(self.device, dtype)
        one_sign = [1] * len(part)
        one_sign[0] = part[0]
        if len(part) > 1:
            one_sign[channel_dim] = part[channel_dim]
        sign = torch.randint(0, 2, one_sign, generator=self.generator) * 2.0 - 1.0
        sign[:samples] = 1.0
        return torch.cat([sign * small, -sign * small, sign * huge, -sign * huge]).to(self.device, dtype)

    def like(self, value: Any) -> Any:
        """Noise of the same shape for a floating-point tensor; anything else unchanged."""
        if isinstance(value, Tensor) and value.is_floating_point():
            return self(value.shape, value.dtype, 1 if value.dim() == 4 else -1).to(value.device)
        return value


def _noisy_batch(inputs: tuple[Any, ...], noise: _Noise) -> tuple[Any, ...]:
    sizes = [x.shape[0] for x in inputs if isinstance(x, Tensor) and x.dim()]

    def batched(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.dim() or x.shape[0] != sizes[0]:
            return x
        repeated = x[:1].expand(SAMPLES, *x.shape[1:]).contiguous()
        return noise.like(repeated)

    return tuple(batched(x) for x in inputs)


def _constant_channels(x: Tensor, dim: int) -> Tensor:
    """[channels] the value of every channel of `x` that does not vary over all other dimensions, else NaN."""
    flat = x.detach().movedim(dim, 0).flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    scale = torch.maximum(low.abs(), high.abs())
    constant = (high - low) <= _TOLERANCE.get(x.dtype, 1e-2) * scale  # false for NaN and for infinity
    return torch.where(constant, flat[:, 0], torch.nan)


def _recorder(name: str, record: Callable[[str, Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        record(name, _constant_channels(args[0], channel_dim(module)))

    return hook


def _abstract_forward(
    module: nn.Module, name: str, record: Callable[[str, Tensor], None], noise: _Noise
) -> Callable[..., Tensor]:
    size = layer_size(module)
    shape_only = copy.deepcopy(module).to("meta")
    weight = weight_blocks(module)
    nonzero, kernel_sum = (weight != 0).any(-1), weight.sum(-1)
    border, dim = has_border(module), channel_dim(module)

    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        values = _constant_channels(x, dim)
        record(name, values)
        constant = ~values.isnan().reshape(size.groups, 1, -1)
        filled = values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).reshape(size.groups, 1, -1)
        varying = (nonzero & ~constant).any(-1).flatten()
        outputs = (kernel_sum * filled).sum(-1).flatten()
        if (bias := getattr(self, "bias", None)) is not None:
            outputs = outputs + bias
        y = noise(shape_only(x.to("meta"), *args, **kwargs).shape, x.dtype, dim)
        y.movedim(dim, -1)[..., ~varying] = outputs[~varying].to(x.dtype)
        bent = ~varying & (nonzero & (filled != 0)).any(-1).flatten()
        if border and bent.any():  # a constant in, a map with a border out: the same for every sample
            uniform = filled.flatten().reshape(-1, *[1] * (-1 - dim)).expand_as(x[:1]).to(x.dtype)
            y.movedim(dim, -1)[..., bent] = type(self).forward(self, uniform).movedim(dim, -1)[..., bent]
        return y

    return forward
