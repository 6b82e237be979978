"""The kernels without onnxruntime, against plain loops in C: as they are, under sanitizers, on other processors."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime_check import kernels

SOURCES = Path(kernels.__file__).parent / "src"
WITHOUT_ONNXRUNTIME = [
    "cache_sets",
    "chain",
    "forms",
    "geometry",
    "isa",
    "isa_avx2",
    "isa_avx512",
    "isa_generic",
    "isa_neon",
    "layer",
    "pack",
    "picks",
    "plan",
    "reach",
    "run",
    "schedule",
    "squeeze",
    "tile",
    "unpack",
    "weights",
    "window",
    "workspace",
]
# Outputs of small images are then handed to the next layer's windows in groups of channels, as large ones always are.
SMALL_GROUPS = ["-DTOGETHER_BYTES=65536", "-DLEAST_TOGETHER=1"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]


def tool(*names: str) -> str:
    for name in names:
        if shutil.which(name):
            return name
    pytest.skip(f"{' or '.join(names)} is not installed")


def build(folder: Path, compiler: str, *flags: str) -> Path:
    program = folder / "driver"
    files = [Path(__file__).parent / "driver.c", *(SOURCES / f"{part}.c" for part in WITHOUT_ONNXRUNTIME)]
    always = ["-std=c11", "-D_GNU_SOURCE", "-ffp-contract=fast", *WARNINGS, f"-I{SOURCES}", "-g"]
    command = [compiler, *always, *flags, "-o", str(program), *map(str, files), "-lm", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and ("san" in done.stderr or "-lc" in done.stderr):
        pytest.skip(f"{compiler} lacks a library: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return program


def drive(program: Path, seed: int, count: int, instructions: str, threads: int, *emulator: str) -> str:
    """Run the driver; returns the name of the instruction set that it used."""
    command = [*emulator, str(program), *map(str, (seed, count, instructions, threads))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found, name = done.stdout.strip().split(" chains with ")
    assert int(found) == count
    return name


@pytest.mark.parametrize("flags", [[], SMALL_GROUPS])
def test_random_chains_are_those_of_plain_loops(flags: list[str], tmp_path: Path) -> None:
    program = build(tmp_path, tool("cc", "gcc", "clang"), "-O2", *flags)
    for instructions in ("best", "avx2", "generic"):
        drive(program, 1, 80, instructions, 1)
    drive(program, 1000, 20, "best", 4)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["best", "generic"])
def test_no_access_outside_and_nothing_undefined(tmp_path: Path, instructions: str) -> None:
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *SMALL_GROUPS]
    program = build(tmp_path, tool("cc", "gcc", "clang"), *flags)
    drive(program, 5000, 300, instructions, 1)
    drive(program, 9000, 30, instructions, 8)


@pytest.mark.slow
def test_no_races(tmp_path: Path) -> None:
    flags = ["-O1", "-fsanitize=thread", *SMALL_GROUPS]
    drive(build(tmp_path, tool("cc", "gcc", "clang"), *flags), 5000, 40, "best", 8)


@pytest.mark.slow
def test_clang_compiles_the_same(tmp_path: Path) -> None:
    drive(build(tmp_path, tool("clang"), "-O3"), 1, 200, "best", 1)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates older x86 processors on x86")
@pytest.mark.parametrize(
    ("processor", "expected"),
    [("core2duo", "generic"), ("Nehalem", "generic"), ("SandyBridge", "generic"), ("max", "avx2")],
)
def test_older_processors_meet_no_instruction_they_lack(tmp_path: Path, processor: str, expected: str) -> None:
    emulator = tool("qemu-x86_64")
    program = build(tmp_path, tool("cc", "gcc", "clang"), "-O3", "-static")
    assert drive(program, 1, 20, "best", 1, emulator, "-cpu", processor) == expected


@pytest.mark.slow
def test_neon_is_used_and_right_on_aarch64(tmp_path: Path) -> None:
    emulator = tool("qemu-aarch64")
    program = build(tmp_path, tool("aarch64-linux-gnu-gcc"), "-O3", "-static")
    assert drive(program, 1, 40, "best", 1, emulator) == "neon"
    assert drive(program, 1, 20, "generic", 1, emulator) == "generic"
