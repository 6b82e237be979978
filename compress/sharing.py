"""Which layers, or channels of a layer, share a filter basis: coarse, medium, fine, in_N and out_N (002, 5.4.3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import nn
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from compress.prunable import PrunableWeight, stored_weight
from compress.suggestion import did_you_mean

NAMES = "coarse, medium, fine, or in_N / out_N such as out_64"
LARGE_KERNEL = 25
"""A kernel of more entries is large: 5x5 is not, 7x7 is."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The layers of one basis, and how many neighbouring channels each of its groups serves.

    Attributes:
        weights: the layers, all of one kernel size.
        axis: 0 where ``channels`` counts output channels, 1 for input channels of the weight.
        channels: None: one group of filters for everything.
    """

    weights: tuple[PrunableWeight, ...]
    axis: int = 0
    channels: int | None = None


def check_sharing(name: object) -> None:
    """Raise ValueError unless ``name`` is a way of sharing."""
    text = name if isinstance(name, str) else ""
    if text not in ("coarse", "medium", "fine") and not _PER_CHANNELS.fullmatch(text):
        close = did_you_mean(text, ("coarse", "medium", "fine", "in_64", "out_64"))
        hint = close if "did you mean" in close else ""
        raise ValueError(f"interspace: {name!r} is not one of {NAMES}{hint}")


def shared(
    model: nn.Module, weights: Sequence[PrunableWeight], sharing: str, *, large_kernels: bool = False
) -> list[Sharing]:
    """Who shares a basis with whom; layers that are not among them keep the identity.

    Convolutions in two dimensions with a kernel larger than 1x1 have bases, up to 5x5 or, with ``large_kernels``, any
    size: ResNet-18 keeps its 7x7 convolution as it is, ResNet-50 does not (002, section 5.5). A basis never
    serves kernels of two sizes.

    Args:
        model: the network; registration order counts as order of execution.
        weights: the layers to choose from.
        sharing: coarse (one for the network), medium (one a stage, see :func:`stages`), fine (one a layer), in_N or
            out_N (one for N neighbouring input or output channels of a layer, starting at the first).
        large_kernels: see above.

    Raises:
        ValueError: no layer fits, or no layer has more than N channels.
    """
    check_sharing(sharing)
    kernels = [weight for weight in weights if isinstance(weight.module, nn.Conv2d) and _entries(weight) > 1]
    fitting = [weight for weight in kernels if large_kernels or _entries(weight) <= LARGE_KERNEL]
    if not fitting:
        way_out = "set large_kernels" if kernels else "leave interspace out to prune weights themselves"
        raise ValueError(
            f"interspace: {sharing!r} fits no layer, none that may be pruned is a 2-d convolution with a kernel "
            f"larger than 1x1{' and up to 5x5' if kernels else ''}; {way_out}"
        )
    if found := _PER_CHANNELS.fullmatch(sharing):
        return _per_channels(fitting, 1 if found[1] == "in" else 0, int(found[2]))
    if sharing == "fine":
        return [Sharing(weights=(weight,)) for weight in fitting]
    stage = stages(model, fitting) if sharing == "medium" else dict.fromkeys((w.name for w in fitting), 0)
    together: dict[tuple[object, ...], list[PrunableWeight]] = {}
    for weight in fitting:
        tensor = stored_weight(weight.module)
        key = (stage[weight.name], tuple(tensor.shape[2:]), tensor.dtype, tensor.device)
        together.setdefault(key, []).append(weight)
    return [Sharing(weights=tuple(group)) for group in together.values()]


def stages(model: nn.Module, weights: Sequence[PrunableWeight]) -> dict[str, int]:
    """Number of the stage of each layer, by weight name.

    A stage begins behind a pooling layer of stride above 1, at a strided convolution, and where a named block of the
    network begins ("layer2", but not the "2" of a Sequential). That makes the five stages of VGG-16 and of ResNets
    (002, section 5.4.3.1 and Table A.3).
    """
    names = {id(weight.module): weight.name for weight in weights}
    parents = [weight.name.split(".")[:-2] for weight in weights]
    depth = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False)))
    found: dict[str, int] = {}
    number, block = 0, None
    for module in model.modules():
        if isinstance(module, (_MaxPoolNd, _AvgPoolNd)):
            number += _strided(module)
        elif id(module) in names:
            name = names[id(module)]
            here = next((part for part in name.split(".")[depth:-2][:1] if not part.isdigit()), None)
            number += _strided(module) or here != block
            block, found[name] = here, number
    return found


def _per_channels(weights: Sequence[PrunableWeight], axis: int, channels: int) -> list[Sharing]:
    most = max(stored_weight(weight.module).shape[axis] for weight in weights)
    if channels > most:
        side = "input" if axis else "output"
        raise ValueError(
            f"interspace: '{'in' if axis else 'out'}_{channels}' fits no layer, none has more than {most} {side} "
            "channels; fine is one basis a layer"
        )
    return [Sharing(weights=(weight,), axis=axis, channels=channels) for weight in weights]


def _entries(weight: PrunableWeight) -> int:
    return stored_weight(weight.module)[0, 0].numel()


def _strided(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return any(step > 1 for step in (stride if isinstance(stride, tuple) else (stride,)))


_PER_CHANNELS = re.compile(r"(in|out)_([1-9]\d*)")
