"""What is left of every layer: the share of its weights that is gone, and its size before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime_check.formats import count_text, percent_text
from runtime_check.pictures.svg import Scale, box, fit, line, linear, picture, text

# More rows than this are no picture any more; the largest layers are drawn and the table has the rest.
MAX_ROWS = 72

_WIDTH, _ROW, _HEAD = 760.0, 20.0, 30.0
_NAME_END, _GONE, _SIZE, _SIZE_END = 190.0, 200.0, 480.0, 630.0
_GONE_WIDTH = 180.0


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one layer: before compression, stored in the file, and not zero."""

    name: str
    baseline: float
    stored: float
    nonzero: float

    @property
    def gone(self) -> float:
        """Share of the original weights that are removed or zero."""
        return 1 - self.nonzero / self.baseline if self.baseline else 0.0


def layer_bars(layers: Sequence[Layer]) -> str:
    """Draw one row a layer, in network order: left the share gone (removed, zero), right the size."""
    drawn = shown(layers)
    share = linear(0, 1, 0, _GONE_WIDTH)
    size = linear(0, max((layer.baseline for layer in drawn), default=0) or 1, 0, _SIZE_END - _SIZE)
    bottom = _HEAD + _ROW * len(drawn)
    parts = [
        text(_GONE, 13, "share of the weights", "strong"),
        text(_SIZE, 13, "number of weights", "strong"),
    ]
    for quarter in range(5):
        x = _GONE + share(quarter / 4)
        parts.append(line(x, _HEAD - 8, x, bottom, "grid"))
    for index, layer in enumerate(drawn):
        parts += _row(layer, _HEAD + index * _ROW, share, size)
    return picture(
        _WIDTH,
        bottom + 4,
        "What is left of each layer",
        f"{len(drawn)} of {len(layers)} layers: share of weights gone, number of weights left",
        parts,
    )


def shown(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that are drawn: all, or the largest `MAX_ROWS` in network order."""
    ranked = sorted(range(len(layers)), key=lambda index: (-layers[index].baseline, index))[:MAX_ROWS]
    return [layers[index] for index in sorted(ranked)]


def _row(layer: Layer, y: float, share: Scale, size: Scale) -> list[str]:
    left = f"{count_text(layer.nonzero)} of {count_text(layer.baseline)}"
    tip = f"{layer.name}: {left} weights left, {percent_text(layer.gone)} gone"
    whole = layer.baseline or 1
    end = max(size(layer.baseline), 1)
    return [
        text(_NAME_END, y + 13, fit(layer.name, _NAME_END, 12), "small", "end"),
        *_stack(_GONE, y, [share(part / whole) for part in (layer.baseline, layer.stored, layer.nonzero)], tip),
        text(_GONE + _GONE_WIDTH + 8, y + 14, f"{percent_text(layer.gone)} gone", "small"),
        *_stack(_SIZE, y, [end, size(layer.stored), max(size(layer.nonzero), 1)], tip),
        text(_SIZE + end + 8, y + 14, left, "small soft"),
    ]


def _stack(x: float, y: float, widths: Sequence[float], tip: str) -> list[str]:
    """Everything, what the file stores, what is not zero: each drawn over the one before."""
    styles = ("faint", "removed", "after")
    return [box(x, y + 4, width, 12, css, tip=tip) for width, css in zip(widths, styles, strict=True) if width > 0]
