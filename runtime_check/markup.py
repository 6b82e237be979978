"""HTML pieces of the report, and careful reading of a document nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

# Larger numbers are no figures of a network, and would only overflow in the pictures' arithmetic.
_LARGEST = 1e18


def section(title: str, lead: str, *parts: str) -> str:
    """A section with a heading and one leading sentence; empty when it has no parts."""
    body = "".join(parts)
    if not body:
        return ""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{body}</section>"


def figure(picture: str, caption: str = "", note: str = "") -> str:
    """A picture with its caption; `note` is set large at the caption's end."""
    bold = f"<b>{escape(note)}</b>" if note else ""
    words = f"<figcaption><span>{escape(caption)}</span>{bold}</figcaption>" if caption else ""
    return f'<figure>{words}<div class="picture">{picture}</div></figure>'


def cell(content: str, note: str = "", css: str = "") -> str:
    """A table cell with an optional second line in small print."""
    small = f"<small>{escape(note)}</small>" if note else ""
    kind = f' class="{css}"' if css else ""
    return f"<td{kind}>{escape(content)}{small}</td>"


def table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], css: str = "") -> str:
    """A table whose rows are (heading, cells made by `cell`)."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)
    kind = f' class="{css}"' if css else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def legend(*entries: tuple[str, str]) -> str:
    """Colour keys: pairs of CSS class and meaning."""
    items = "".join(f'<li><i class="{css}"></i>{escape(words)}</li>' for css, words in entries)
    return f'<ul class="legend">{items}</ul>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of named facts; empty when there are none."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def dig(document: object, *keys: str) -> object:
    """Follow keys into nested mappings; None where one is missing."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def number(value: object) -> float | None:
    """A finite number of a believable size, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_LARGEST <= value <= _LARGEST else None


def amount(document: object, *keys: str) -> float | None:
    """A finite, non-negative number at keys, or None."""
    value = number(dig(document, *keys))
    return value if value is not None and value >= 0 else None


def words(value: object, limit: int = 200) -> str:
    """Any scalar as text of at most `limit` characters; empty for None and for containers."""
    if value is None or isinstance(value, Mapping | list | tuple):
        return ""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def rows_of(document: object, key: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at a key; anything else is skipped."""
    value = dig(document, key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def interval(value: object) -> tuple[float, float] | None:
    """A pair of finite numbers in order, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return (low, high) if low is not None and high is not None and low <= high else None


def outline(value: object, depth: int = 0) -> str:
    """Nested mappings and lists as YAML-like lines, for reading (not for parsing)."""
    lines = list(_lines(value, depth))
    return "\n".join(lines[:400] + (["…"] if len(lines) > 400 else []))


def _lines(value: object, depth: int) -> Iterable[str]:
    pad = "  " * depth
    if depth > 8:
        yield f"{pad}…"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if _nested(item):
                yield f"{pad}{words(key)}:"
                yield from _lines(item, depth + 1)
            else:
                yield f"{pad}{words(key)}: {_scalar(item)}"
    elif isinstance(value, list | tuple):
        for item in value:
            if _nested(item):
                inner = list(_lines(item, depth + 1))
                yield f"{pad}- {inner[0].lstrip()}"
                yield from inner[1:]
            else:
                yield f"{pad}- {_scalar(item)}"
    else:
        yield f"{pad}{_scalar(value)}"


def _nested(value: object) -> bool:
    """Containers that need lines of their own: filled ones, but for short lists of scalars."""
    if isinstance(value, Mapping):
        return bool(value)
    flat = isinstance(value, list | tuple) and not any(isinstance(v, Mapping | list | tuple) for v in value)
    return isinstance(value, list | tuple) and bool(value) and not (flat and len(value) <= 12)


def _scalar(value: object) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return words(value)
