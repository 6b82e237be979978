"""The command ``compress-then-export``: a thin layer over the pipeline. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

EXIT_FAILED, EXIT_USAGE, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

resume_option = click.option("--resume", is_flag=True, help="Go on with the checkpoints of a run that stopped.")
kernels_option = click.option(
    "--kernels/--no-kernels",
    default=None,
    help="Whether the check runs sparse layers from their non-zeros [default: as check.kernels says, on].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="compress-then-export")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only warnings.")
def main(quiet: bool) -> None:
    """Put a trained PyTorch network on a CPU: smaller, faster, and proven to be as accurate as before.

    Exit codes: 0 done and good; 1 failed; 2 wrong usage; 3 ran, but a gate was not met.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for room in ("compress", "exporters", "runtime_check", "compress_then_export"):
        logging.getLogger(room).setLevel(logging.WARNING if quiet else logging.INFO)


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Expected problems become one line on stderr and an exit code; anything else is a bug and shows itself."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            _stop("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_FAILED)
        except OSError as error:
            _stop(f"{error.filename or 'disk'}: {error.strerror or error}", EXIT_FAILED)
        except ValueError as error:
            wrong_usage = type(error).__name__ in ("RecipeError", "WorkspaceError", "DataKeyError")
            _stop(" ".join(str(error).split()), EXIT_USAGE if wrong_usage else EXIT_FAILED)

    return wrapped


def _check_kernels(kernels: bool | None) -> tuple[str, ...]:
    """The override that --kernels or --no-kernels stands for."""
    return () if kernels is None else (f"check.kernels={str(kernels).lower()}",)


@main.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the bundle; default: the recipe's name.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@kernels_option
@resume_option
@json_option
@one_line_errors
def run(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], kernels: bool | None, resume: bool, as_json: bool
) -> None:
    """Take a model through RECIPE: train, prune, shrink, export, check; the bundle appears in --out."""
    from compress_then_export.recipe import read_recipe

    parsed = read_recipe(recipe, overrides + _check_kernels(kernels))
    _run(parsed, out or Path(recipe.stem), resume=resume, as_json=as_json)


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-bundle"),
    show_default=True,
    help="Folder of the bundle.",
)
@kernels_option
@resume_option
@json_option
@one_line_errors
def demo(out: Path, kernels: bool | None, resume: bool, as_json: bool) -> None:
    """The whole path on real data, in about a minute on two cores."""
    from compress_then_export.recipe import read_recipe

    with as_file(files("compress_then_export") / "demo.yaml") as path:
        parsed = read_recipe(path, _check_kernels(kernels))
    _run(parsed, out, resume=resume, as_json=as_json)


@main.command()
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sparsity", "sparsities", required=True, metavar="A,B,C", help="Sparsities to cut to, ascending.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the family; default: RECIPE's name-family.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@kernels_option
@resume_option
@json_option
@one_line_errors
def sweep(
    recipe: Path,
    sparsities: str,
    out: Path | None,
    overrides: tuple[str, ...],
    kernels: bool | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train once as RECIPE says, cut to every sparsity, and check a bundle for each; one report over all."""
    _quiet_threads()
    from compress_then_export.family import family_table
    from compress_then_export.recipe import read_recipe
    from compress_then_export.sweep import parse_sparsities
    from compress_then_export.sweep import sweep as run_sweep

    wanted, parsed = parse_sparsities(sparsities), read_recipe(recipe, overrides + _check_kernels(kernels))
    folder = out or Path(f"{recipe.stem}-family")
    with _stdout_is_for_results():
        document = run_sweep(parsed, wanted, folder, resume=resume)
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(family_table(document))
        for warning in document["verdict"]["warnings"]:
            click.echo(f"warning  {warning}")
        click.echo(f"\nfamily: {folder}   report: {folder / 'report.html'}")
    if not document["verdict"]["passed"]:
        sys.exit(EXIT_GATE)


@main.command()
@json_option
@one_line_errors
def methods(as_json: bool) -> None:
    """Every method: what it does, its settings with defaults, its paper."""
    from compress.methods import available, settings_of

    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "summary": method.summary,
            "paper": method.paper,
            "settings": [
                {"name": field.name, "default": field.default, "help": field.metadata["help"]}
                for field in settings_of(method)
            ],
        }
        for name, method in available().items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['method']}: {row['summary']}\n    {row['paper']}")
        for field in settings_of(available()[row["method"]]):
            shown = "" if field.default is None else f" [{_plain(field.default)}]"
            click.echo(f"    {field.name}{shown}: {field.metadata['help']}")
        click.echo()


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@one_line_errors
def inspect(file: Path, as_json: bool) -> None:
    """Layers, sparsity, MACs, bytes and encodings of any ONNX FILE."""
    from compress_then_export.inspection_table import inspection_table
    from exporters.inspection import inspect as inspect_file

    report = inspect_file(file)
    click.echo(json.dumps(report.to_json(), indent=2, allow_nan=False) if as_json else inspection_table(report))


def _run(recipe: Any, out: Path, *, resume: bool, as_json: bool) -> None:
    _quiet_threads()
    from compress_then_export.pipeline import run as run_pipeline
    from compress_then_export.table import summary_table, verdict_lines
    from runtime_check.tables import kernels_text

    with _stdout_is_for_results():
        document = run_pipeline(recipe, out, resume=resume)
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(summary_table(document))
        click.echo(f"\nmodel.onnx: {kernels_text(document, document['environment'])}")
        for line in verdict_lines(document):
            click.echo(line)
        click.echo(f"\nbundle: {out}   report: {out / 'report.html'}")
    if not document["verdict"]["passed"]:
        sys.exit(EXIT_GATE)


def _quiet_threads() -> None:
    # Must be set before torch is imported: idle threads of libgomp spin so long that, on a machine with other
    # work, two threads mostly wait for one another. The demo beside two busy processes: 139 s instead of 250 s.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@contextmanager
def _stdout_is_for_results() -> Iterator[None]:
    """Whatever a library prints while it works goes to stderr; stdout holds the result alone."""
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        yield


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
