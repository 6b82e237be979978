"""What settings must be, and the first half of every message about one that is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def require(condition: bool, argument: str, value: object, expected: str) -> None:
    """Raise ValueError naming ``argument`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: {value!r} is not {expected}")


def require_whole(argument: str, value: object, least: int, what: str = "a whole number") -> None:
    """Raise ValueError naming ``argument`` unless ``value`` is an int, no bool, and at least ``least``."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(good, argument, value, f"{what}, {least} or more")


def patterns(argument: str, value: object) -> tuple[str, ...]:
    """A list of name patterns as a tuple.

    Raises:
        ValueError: it is a single string, or holds something else.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{argument}: {value!r} is not a list of patterns; write ['layer4.*']")
    found = tuple(value)
    if not all(isinstance(pattern, str) for pattern in found):
        raise ValueError(f"{argument}: {value!r} is not a list of patterns; write ['layer4.*']")
    return found


def matches(layer: str, pattern: str) -> bool:
    """Whether a shell pattern names a layer, by its own name or that of its weight."""
    return fnmatchcase(layer, pattern) or fnmatchcase(f"{layer}.weight" if layer else "weight", pattern)


def unmatched(pattern: str, layers: Sequence[str]) -> ValueError:
    """The error for a pattern of ``exclude`` that names none of these layers."""
    return ValueError(
        f"exclude: {pattern!r} matches no convolution or linear layer; the model has {', '.join(layers[:8]) or 'none'}"
    )


def known_steps(argument: str, value: int | None, meaning: str) -> int:
    """A step count that ``planned`` fills where it was left open.

    Raises:
        ValueError: it was left open, and nobody planned it; ``meaning`` says what to give.
    """
    if value is None:
        raise ValueError(
            f"{argument}: not set; give {meaning}, or call planned(total_steps, lr_drops) to have it chosen"
        )
    return value
