"""The first half of every "wrong setting" message."""

from __future__ import annotations


def require(condition: bool, argument: str, value: object, expected: str) -> None:
    """Raise ValueError naming ``argument`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: {value!r} is not {expected}")


def require_whole(argument: str, value: object, least: int, what: str = "a whole number") -> None:
    """Raise ValueError naming ``argument`` unless ``value`` is an int, no bool, and at least ``least``."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(good, argument, value, f"{what}, {least} or more")
