"""The first half of every "wrong setting" message."""

from __future__ import annotations


def require(condition: bool, argument: str, value: object, expected: str) -> None:
    """Raise ValueError naming ``argument`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: {value!r} is not {expected}")
