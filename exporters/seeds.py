"""Which tensors of a model are frozen values plus some trained ones, found by comparing bits."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.cleaning import flushed
from exporters.encodings.generator import BITS, LARGEST, PREFIXES, STREAMS, Source, generate, indices, unit_values
from exporters.encodings.seeded import Frozen, Seeded
from exporters.errors import ExportError

_LOG = logging.getLogger(__name__)

# With fewer weights at their frozen value than this the other encodings are as small.
_LEAST_SHARE = 1 / 16

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Seed:
    """The frozen values of one parameter: the record that `compress.frozen.FrozenValues.to_json` makes.

    Attributes:
        seed: 32 bits, the same for all parameters of a file.
        stream: The parameter's own stream of that seed.
        distribution: ``"xavier_normal"``, ``"kaiming_uniform"`` or ``"signed_constant"``, the same for all.
        scale: Standard deviation, bound or σ.
        shape: The shape of the parameter.
    """

    seed: int
    stream: int
    distribution: str
    scale: float
    shape: tuple[int, ...]

    def values(self) -> Array:
        """Return the frozen values."""
        table = unit_values(self.distribution) * np.float32(self.scale)
        size = int(np.prod(self.shape))
        return table[indices(self.seed, self.distribution, Source(stream=self.stream, size=size))].reshape(self.shape)


def check_seeds(
    seeds: Mapping[str, Mapping[str, Any]] | None, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Seed]:
    """Return the records by parameter, or raise ExportError for one that does not fit its parameter."""
    found = {}
    for name, record in (seeds or {}).items():
        if name not in shapes:
            close = difflib.get_close_matches(name, shapes, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ExportError(f"seeds: the model has no parameter {name!r}{hint}")
        found[name] = _seed(name, record)
        if found[name].shape != shapes[name]:
            raise ExportError(
                f"seeds: {name!r} was frozen with shape {list(found[name].shape)} but has {list(shapes[name])}; "
                "leave out the seeds of parameters that were reshaped"
            )
    if len({(item.seed, item.distribution) for item in found.values()}) > 1:
        raise ExportError("seeds: all parameters of a file need the same seed and distribution")
    return found


def _seed(name: str, record: Mapping[str, Any]) -> Seed:
    if not isinstance(record, Mapping):
        raise ExportError(f"seeds: the record of {name!r} is no mapping; it must be one like FrozenValues.to_json()")
    fields = {"seed": 2**32, "stream": STREAMS}
    missing = sorted({*fields, "distribution", "scale", "shape"} - set(record))
    if missing:
        raise ExportError(f"seeds: the record of {name!r} lacks {', '.join(missing)}")
    for field, end in fields.items():
        value = record[field]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
            raise ExportError(f"seeds: {field} {value!r} of {name!r} is not a whole number below {end}")
    scale, distribution, shape = record["scale"], record["distribution"], record["shape"]
    if not isinstance(shape, list | tuple) or not all(type(size) is int for size in shape):
        raise ExportError(f"seeds: shape {shape!r} of {name!r} is not a list of whole numbers")
    if not isinstance(distribution, str) or distribution not in BITS:
        raise ExportError(f"seeds: distribution {distribution!r} of {name!r} is not one of {', '.join(BITS)}")
    if not isinstance(scale, float) or not 0 < scale < np.inf or float(np.float32(scale)) != scale:
        raise ExportError(f"seeds: scale {scale!r} of {name!r} is not a positive float32 number")
    return Seed(
        seed=record["seed"], stream=record["stream"], distribution=distribution, scale=scale, shape=tuple(shape)
    )


def prepare(
    seeds: Mapping[str, Seed], weights: Mapping[str, Array], parameters: Mapping[str, Array], names: Collection[str]
) -> Seeded:
    """Return the encoding of those weights that are frozen values with trained ones among them.

    Args:
        seeds: The records.
        weights: The weights of the graph.
        parameters: The parameters of the model, before BatchNorm was folded into them, as far as they are known.
        names: All names of the graph.
    """
    matched = {}
    for name in [name for name in weights if name in seeds]:
        background = seeds[name].values()
        found = _match(background, weights[name], parameters.get(name))
        if found is None:
            _LOG.warning(
                "%s does not hold the values of its seed and takes another encoding: the seed is another one, the "
                "weights were trained since, or a BatchNorm behind them scales a channel by 0",
                name,
            )
        else:
            matched[name] = (background, *found)
    total = sum(item[0].size for item in matched.values())
    if total > LARGEST:
        _LOG.warning("%d frozen weights are more than the %d that one file regenerates", total, LARGEST)
    if not 0 < total <= LARGEST:
        return Seeded()
    sources = [Source(stream=seeds[name].stream, size=item[0].size) for name, item in matched.items()]
    first = seeds[next(iter(matched))]
    for prefix in PREFIXES:
        generator = generate(first.seed, first.distribution, sources, prefix=prefix)
        if not generator.names & set(names):
            break
    frozen = {
        name: Frozen(weights=unfolded, background=background, factor=factor, scale=seeds[name].scale, indices=chosen)
        for chosen, (name, (background, unfolded, factor)) in zip(generator.indices, matched.items(), strict=True)
    }
    return Seeded(generator=generator, frozen=frozen)


def _match(background: Array, weights: Array, parameter: Array | None) -> tuple[Array, Array | None] | None:
    """Return the weights before a BatchNorm was folded, and its factor; None when they are not the frozen ones."""
    if _share(background, weights) >= _LEAST_SHARE:
        return weights, None
    if parameter is None or parameter.shape != weights.shape:
        return None
    unfolded = flushed(parameter)
    if _share(background, unfolded) < _LEAST_SHARE:
        return None
    factor = folded_factor(unfolded, weights)
    return None if factor is None else (unfolded, factor)


def _share(one: Array, other: Array) -> float:
    return float(np.mean(one.view(np.uint32) == other.view(np.uint32)))


def folded_factor(unfolded: Array, folded: Array) -> Array | None:
    """Return one float32 factor a channel of axis 0 or 1 whose products with ``unfolded`` are ``folded``, bit by bit.

    The quotient of the largest weights of a channel gives the factor up to its last bits; these are tried out.
    None when there is no such factor, or when it is 0 somewhere.
    """
    for axis in range(min(2, unfolded.ndim)):
        rows = np.moveaxis(unfolded, axis, 0).reshape(unfolded.shape[axis], -1)
        targets = np.moveaxis(folded, axis, 0).reshape(rows.shape)
        largest = np.argmax(np.abs(rows), axis=1)[:, None]
        tops = np.take_along_axis(rows, largest, 1).astype(np.float64)
        quotient = np.take_along_axis(targets, largest, 1) / np.where(tops == 0, 1, tops)
        guess = np.where(tops == 0, 1, quotient).astype(np.float32)
        factor = np.zeros_like(guess)
        for step in (0, 1, -1, 2, -2):
            tried = (guess.view(np.int32) + np.int32(step)).view(np.float32)
            exact = (rows * tried).view(np.uint32) == targets.view(np.uint32)
            good = exact.all(axis=1, keepdims=True) & (factor == 0)
            factor = np.where(good, tried, factor)
        if factor.all() and np.isfinite(factor).all():
            return factor.reshape([-1 if place == axis else 1 for place in range(unfolded.ndim)])
    return None
