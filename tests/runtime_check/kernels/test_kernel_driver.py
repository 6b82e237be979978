"""The kernels without onnxruntime, against plain loops in C: quick as they are, slowly under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime_check import kernels

SOURCES = Path(kernels.__file__).parent / "src"
WITHOUT_ONNXRUNTIME = (
    "cache_sets chain forms geometry isa isa_avx2 isa_generic layer pack plan run schedule unpack weights window workspace"
).split()


def build(folder: Path, *flags: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program = folder / "driver"
    files = [Path(__file__).parent / "driver.c", *(SOURCES / f"{part}.c" for part in WITHOUT_ONNXRUNTIME)]
    always = [
        "-std=c11",
        "-D_GNU_SOURCE",
        "-ffp-contract=fast",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-psabi",
        f"-I{SOURCES}",
    ]
    command = [compiler, *always, *flags, "-g", "-o", str(program), *map(str, files), "-lm", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return program


def drive(program: Path, seed: int, count: int, instructions: str, threads: int) -> None:
    command = [str(program), *map(str, (seed, count, instructions, threads))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.strip() == f"{count} chains"


def test_random_chains_are_those_of_plain_loops(tmp_path: Path) -> None:
    program = build(tmp_path, "-O2")
    for instructions in ("best", "generic"):
        drive(program, 1, 100, instructions, 1)
    drive(program, 1000, 20, "best", 4)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["best", "generic"])
def test_no_access_outside_and_nothing_undefined(tmp_path: Path, instructions: str) -> None:
    program = build(tmp_path, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    drive(program, 5000, 300, instructions, 1)
    drive(program, 9000, 50, instructions, 8)


@pytest.mark.slow
def test_no_races(tmp_path: Path) -> None:
    drive(build(tmp_path, "-O1", "-fsanitize=thread"), 5000, 60, "best", 8)
