"""The frame of every report: one self-contained HTML page that fetches and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from runtime_check.markup import dig, words
from runtime_check.theme import STYLE

# Nothing may be fetched or run, whatever a hostile name managed to smuggle in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, parts: Iterable[str]) -> str:
    """The page with the parts that are not empty, one below the other; ``title`` is escaped here."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main></body></html>\n"
    )


def warnings_box(document: Mapping[str, Any]) -> str:
    """The warnings of the verdict; empty where there are none."""
    found = dig(document, "verdict", "warnings")
    items = [words(item, 400) for item in found] if isinstance(found, list | tuple) else []
    listed = "".join(f"<li>{escape(item)}</li>" for item in items if item)
    return f'<div class="warnings" role="note"><strong>Read with care</strong><ul>{listed}</ul></div>' if listed else ""
