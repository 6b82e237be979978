"""The command `runtime-check`: a thin layer over `verify` and `bench`.

Only click is imported here; numpy and onnxruntime are imported once a command really runs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime_check.errors import CheckError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_GOOD, EXIT_FAILED, EXIT_USAGE, EXIT_GATE = 0, 1, 2, 3

_THREADS = click.IntRange(min=1, max=1024)
_SECONDS = click.FloatRange(min=0, max=3600, min_open=True)
_kernels_option = click.option(
    "--kernels/--no-kernels",
    default=True,
    help="Run sparse layers from their non-zeros [default: on].",
)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="compress-then-export", prog_name="runtime-check")
def cli() -> None:
    """Check ONNX files where they will run: parity, accuracy, latency.

    Needs numpy, onnxruntime and click; torch is never imported.

    Exit codes: 0 done and good, 1 failed, 2 wrong usage, 3 a gate is not met.
    Results go to stdout, progress to stderr.
    """


@cli.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    help="Gate: accuracy lost against dense, at most, in percentage points.",
)
@click.option("--min-speedup", type=float, metavar="X", help="Gate: dense latency over model latency, at least.")
@click.option("--max-latency-ms", type=float, metavar="MS", help="Gate: median latency of the model, at most.")
@click.option(
    "--parity-tolerance",
    type=float,
    metavar="D",
    help="Gate: largest relative difference from the torch outputs [default: 0.001; 0.01 where values are float16].",
)
@click.option(
    "--threads",
    type=_THREADS,
    multiple=True,
    metavar="N",
    help="Threads; may be repeated, the gates look at the first [default: 1].",
)
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="Measure accuracy on arrays inputs and labels of this file.",
)
@click.option(
    "--seconds",
    type=_SECONDS,
    default=2.0,
    show_default=True,
    metavar="S",
    help="Measuring time for each number of threads.",
)
@_kernels_option
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report for people to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def verify(
    bundle: Path,
    max_drop: float | None,
    min_speedup: float | None,
    max_latency_ms: float | None,
    parity_tolerance: float | None,
    threads: tuple[int, ...],
    data: Path | None,
    seconds: float,
    kernels: bool,
    html: Path | None,
    as_json: bool,
) -> int:
    """Check the folder BUNDLE: hashes, parity with torch, accuracy, latency against dense.onnx."""
    if html is not None:
        _check_report_path(html, bundle)
    from runtime_check.verdict import Limits
    from runtime_check.verification import verify as check

    with _wrong_usage():
        Limits(max_drop=max_drop, min_speedup=min_speedup, max_latency_ms=max_latency_ms)
        Limits(parity_tolerance=0.0 if parity_tolerance is None else parity_tolerance)
    document = check(
        bundle,
        max_drop=max_drop,
        min_speedup=min_speedup,
        max_latency_ms=max_latency_ms,
        parity_tolerance=parity_tolerance,
        threads=threads or (1,),
        data=data,
        seconds=seconds,
        kernels=kernels,
    )
    if html is not None:
        from runtime_check.report import render

        _write(html, render(document))
    from runtime_check.tables import verify_text

    _print(document, verify_text, as_json)
    return EXIT_GOOD if document["verdict"]["passed"] else EXIT_GATE


@cli.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="A.onnx [B.onnx]...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--threads", type=_THREADS, default=1, show_default=True, metavar="N", help="Threads of one operator.")
@click.option(
    "--seconds",
    type=_SECONDS,
    default=5.0,
    show_default=True,
    metavar="S",
    help="Measuring time for all files together.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Size of a free dimension, such as height=224 or input.2=224; may be repeated.",
)
@_kernels_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def bench(
    files: tuple[Path, ...],
    threads: int,
    seconds: float,
    shapes: tuple[str, ...],
    kernels: bool,
    as_json: bool,
) -> int:
    """Time ONNX files in turns on random inputs; the first is the baseline of the others."""
    from runtime_check.feeds import parse_shapes
    from runtime_check.latency import bench as measure
    from runtime_check.tables import bench_text

    with _wrong_usage():
        sizes = parse_shapes(shapes)
    document = measure(files, threads=threads, seconds=seconds, shapes=sizes, kernels=kernels)
    _print(document, bench_text, as_json)
    return EXIT_GOOD


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; expected problems are one line on stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("runtime_check").setLevel(logging.INFO)
    try:
        code = cli.main(args=list(args) if args is not None else None, prog_name="runtime-check", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "runtime-check"
        return _complain(f"{command}: {one_line(error.format_message())} (see {command} --help)", EXIT_USAGE)
    except click.Abort:
        return _complain("runtime-check: stopped", EXIT_FAILED)
    except (CheckError, OSError, MemoryError, click.ClickException) as error:
        return _complain(f"runtime-check: {one_line(error, 600) or type(error).__name__}", EXIT_FAILED)
    return code if isinstance(code, int) else EXIT_GOOD


def _complain(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """What is wrong in here is an option, not a file."""
    try:
        yield
    except CheckError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error


def _check_report_path(html: Path, bundle: Path) -> None:
    """Find out before the measurement that the report could not be written, or would spoil the bundle."""
    if html.resolve().parent == bundle.resolve():
        raise click.BadParameter(
            "would change a file of the bundle, whose hashes are in its manifest; choose another folder",
            param_hint="--html",
        )
    if not os.access(html.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(
            f"the folder {one_line(html.parent)} does not exist or cannot be written to", param_hint="--html"
        )


def _print(document: dict[str, Any], as_text: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    click.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else as_text(document))


def _write(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(text)
            file.close()
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
