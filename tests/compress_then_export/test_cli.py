"""The command line: help for everything, quick help, listings."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from compress.methods import available
from compress_then_export.cli import main
from compress_then_export.table import summary_table
from exporters import export
from runtime_check.cli import cli as runtime_check_cli

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> list[click.Command]:
    return list(main.commands.values())


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_command_and_option_has_help(command: click.Command) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    assert CliRunner().invoke(main, [str(command.name), "--help"]).exit_code == 0


def test_every_method_has_a_page() -> None:
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")}
    assert pages == {*available(), "interspace"}  # a setting of all of them


@pytest.mark.parametrize("command", [main, runtime_check_cli])
def test_version(command: click.Command) -> None:
    assert CliRunner().invoke(command, ["--version"]).output.rstrip().endswith(version("compress-then-export"))


def test_the_table_never_rounds_up_and_says_what_got_worse() -> None:
    side: dict[str, Any] = {
        "accuracy": 0.9,
        "parameters": 1999,
        "nonzero_parameters": 10,
        "macs": 10,
        "size_bytes": 100,
    }
    before = {**side, "latency_ms": {"median": 1.0}}
    after = {**side, "parameters": 1000, "macs": 11, "size_bytes": 120, "latency_ms": {"median": 1.25}}
    speedup = {"median": 0.8, "ci95": [0.7999, 0.8001]}
    lines = summary_table({"baseline": before, "compressed": after, "speedup": speedup}).splitlines()
    assert lines[2].endswith("1.99x fewer")
    assert lines[3].endswith("as before")
    assert lines[4].endswith("1.10x more")
    assert lines[5].endswith("1.20x larger")
    assert lines[6].endswith("1.25x slower (speed-up 0.79 to 0.80 in this run)")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom compress_then_export.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'onnx', 'onnxruntime', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_methods_lists_settings_with_defaults() -> None:
    rows = json.loads(CliRunner().invoke(main, ["methods", "--json"]).stdout)
    dpf = next(row for row in rows if row["method"] == "dpf")
    defaults = {setting["name"]: setting["default"] for setting in dpf["settings"]}
    assert defaults["period"] == 16
    assert defaults["distribution"] == "global"
    assert all(setting["help"] for row in rows for setting in row["settings"])
    text = CliRunner().invoke(main, ["methods"]).stdout
    assert "period [16]" in text


def test_inspect(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    export(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3)).eval(), torch.zeros(1, 1, 4, 4), file)
    document = json.loads(CliRunner().invoke(main, ["inspect", str(file), "--json"]).stdout)
    assert document["parameters"] == 40 + 51
    assert document["macs"] == 36 * 4 + 48
    text = CliRunner().invoke(main, ["inspect", str(file)]).stdout
    assert "Conv" in text
    assert "91 parameters" in text


def test_inspect_of_a_truncated_or_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    export(nn.Linear(30, 30).eval(), torch.zeros(1, 30), file)
    file.write_bytes(file.read_bytes()[:1000])
    for path in (file, tmp_path / "none.onnx"):
        result = CliRunner().invoke(main, ["inspect", str(path)])
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1


def test_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["compress"]).exit_code == 2
