"""The second half of every "no such name" message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_LISTED = 20


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'dpf'?" when a known name is close, else "; known: ..." unless there are too many."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if len(names) <= _MOST_LISTED else ""
