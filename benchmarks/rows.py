"""Results as JSON lines, so that a benchmark that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


class Rows(list[dict[str, Any]]):
    """Rows of ``path`` that carry every value of ``setting``; others in the file are left alone."""

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        super().__init__(row for row in map(json.loads, lines) if setting.items() <= row.items())

    def has(self, wanted: Mapping[str, Any]) -> bool:
        return any(wanted.items() <= row.items() for row in self)

    def add(self, row: dict[str, Any]) -> None:
        """Append it here, to the file, and show it on stderr."""
        self.append(row)
        line = json.dumps(row)
        with self.path.open("a") as file:
            file.write(line + "\n")
        click.echo(line, err=True)
