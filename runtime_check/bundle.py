"""Reading a bundle folder without trusting it: everything is checked before onnxruntime sees a byte."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtime_check.arrays import Archive, open_archive
from runtime_check.errors import CheckError, one_line

SCHEMA = 1
MODEL, BASELINE, GOLDEN, MANIFEST = "model.onnx", "dense.onnx", "golden.npz", "manifest.json"
FIGURES = ("size_bytes", "parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
_MAX_GOLDEN_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The evaluation sample a bundle ships.

    `inputs` float [N, ...], `outputs` float [N, classes] (what torch computed with the folded model),
    `labels` int64 [N].
    """

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle: the very bytes whose hashes were checked, and what the manifest says of them."""

    folder: Path
    manifest: dict[str, Any]
    model: bytes
    baseline: bytes
    golden: Golden
    figures: dict[str, dict[str, float | None]]


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle folder.

    The size and sha256 of every file in the manifest are compared first; the models and the sample are then
    taken from the very bytes that were hashed, so a file swapped in between cannot slip in.

    Raises:
        CheckError: one line naming the file, for a missing folder or file, a manifest of another schema, a
            name that is not a plain file name, a link that leads out, a wrong size or hash, odd arrays.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CheckError(f"{one_line(root)} is not a bundle folder; give a folder that holds {MANIFEST}")
    manifest = _read_manifest(root)
    contents: dict[str, bytes] = {}
    for name, entry in manifest["files"].items():
        kept = _verify_file(root, name, entry, keep=name in (MODEL, BASELINE, GOLDEN))
        if kept is not None:
            contents[name] = kept
    return Bundle(
        folder=root,
        manifest=manifest,
        model=contents[MODEL],
        baseline=contents[BASELINE],
        golden=_read_golden(contents[GOLDEN]),
        figures={side: _figures(manifest, side) for side in ("baseline", "compressed")},
    )


def _read_manifest(root: Path) -> dict[str, Any]:
    with _open_inside(root, MANIFEST) as file:
        content = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(content) > _MAX_MANIFEST_BYTES:
        raise CheckError(f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes; this is not a bundle's manifest")
    try:
        manifest = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckError(f"{MANIFEST} is not valid JSON: {one_line(error)}") from error
    if not isinstance(manifest, dict):
        raise CheckError(f"{MANIFEST} must hold a JSON object, not {type(manifest).__name__}")
    if manifest.get("schema") != SCHEMA:
        found = one_line(repr(manifest.get("schema")), 40)
        raise CheckError(f"{MANIFEST} has schema {found}; this version of runtime-check reads schema {SCHEMA}")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CheckError(f"{MANIFEST} has no table 'files'")
    for needed in (MODEL, BASELINE, GOLDEN):
        if needed not in files:
            raise CheckError(f"{MANIFEST} does not list {needed}, which every bundle holds")
    for name, entry in files.items():
        _check_entry(name, entry)
    return manifest


def _check_entry(name: str, entry: object) -> None:
    if not _PLAIN_NAME.fullmatch(name):
        raise CheckError(f"{MANIFEST} lists {one_line(name, 80)!r}, which is not a plain file name inside the folder")
    if not isinstance(entry, dict):
        raise CheckError(f"{MANIFEST}: the entry of {name} must hold sha256 and size_bytes")
    digest, size = entry.get("sha256"), entry.get("size_bytes")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise CheckError(f"{MANIFEST}: sha256 of {name} must be 64 lower-case hexadecimal digits")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise CheckError(f"{MANIFEST}: size_bytes of {name} must be a non-negative integer")


def _verify_file(root: Path, name: str, entry: dict[str, Any], *, keep: bool) -> bytes | None:
    """Compare size and hash; return the content when `keep`."""
    limit = _MAX_GOLDEN_BYTES if name == GOLDEN else _MAX_MODEL_BYTES
    with _open_inside(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size_bytes"]:
            raise CheckError(
                f"{name} has {size} bytes but the manifest says {entry['size_bytes']}: "
                "it is truncated or was changed; make the bundle again"
            )
        if keep and size > limit:
            raise CheckError(f"{name} has {size} bytes, more than the {limit} that are read")
        digest = hashlib.sha256()
        kept = bytearray()
        while block := file.read(1 << 20):
            digest.update(block)
            if keep:
                kept += block
    if digest.hexdigest() != entry["sha256"]:
        raise CheckError(
            f"{name} does not match its sha256 in the manifest: it is damaged or was changed; make the bundle again"
        )
    return bytes(kept) if keep else None


def _open_inside(root: Path, name: str) -> IO[bytes]:
    """Open a regular file of the folder; links may point to files of the same folder only."""
    path = root / name
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to(root.resolve()):
            raise CheckError(f"{name} is a link that leads out of the bundle folder; put the file itself there")
        if not stat.S_ISREG(target.stat().st_mode):
            raise CheckError(f"{name} is not a regular file")
        return target.open("rb")
    except FileNotFoundError as error:
        raise CheckError(f"{name} is missing in {one_line(root)}; make the bundle again") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links on Python 3.11 and 3.12
        raise CheckError(f"{name} cannot be read: {one_line(error)}") from error


def _read_golden(content: bytes) -> Golden:
    with open_archive(io.BytesIO(content), GOLDEN) as archive:
        inputs, outputs, labels = _golden_headers(archive)
        if len(inputs.shape) < 1 or inputs.shape[0] < 1:
            raise CheckError(f"{GOLDEN} holds no samples; 'inputs' must have shape [N, ...] with N of at least 1")
        samples = inputs.shape[0]
        if len(outputs.shape) != 2 or outputs.shape[0] != samples or outputs.shape[1] < 1:
            raise CheckError(f"{GOLDEN}: 'outputs' must have shape [{samples}, classes], but has {outputs.shape}")
        if labels.shape != (samples,):
            raise CheckError(f"{GOLDEN}: 'labels' must have shape [{samples}], but has {labels.shape}")
        golden = Golden(
            inputs=archive.read("inputs"),
            outputs=archive.read("outputs"),
            labels=archive.read("labels").astype(np.int64),
        )
    if golden.labels.min() < 0 or golden.labels.max() >= outputs.shape[1]:
        raise CheckError(f"{GOLDEN}: 'labels' must lie between 0 and {outputs.shape[1] - 1}, the classes of 'outputs'")
    if not np.isfinite(golden.inputs).all():
        raise CheckError(f"{GOLDEN}: 'inputs' hold NaN or infinity")
    return golden


def _golden_headers(archive: Archive) -> tuple[Any, Any, Any]:
    headers = tuple(archive.header(name) for name in ("inputs", "outputs", "labels"))
    for header, kind in zip(headers, ("f", "f", "i"), strict=True):
        if header.dtype.kind != kind:
            wanted = "floats" if kind == "f" else "integers"
            raise CheckError(f"{GOLDEN}: {header.name!r} must hold {wanted}, but has type {header.dtype}")
    total = sum(header.size_bytes for header in headers)
    if total > _MAX_GOLDEN_BYTES:
        raise CheckError(f"{GOLDEN} unpacks to {total} bytes, more than the {_MAX_GOLDEN_BYTES} that are read")
    return headers[0], headers[1], headers[2]


def _figures(manifest: dict[str, Any], side: str) -> dict[str, float | None]:
    table = manifest.get("figures")
    row = table.get(side) if isinstance(table, dict) else None
    if not isinstance(row, dict):
        raise CheckError(f"{MANIFEST} has no table 'figures.{side}'")
    for key in FIGURES:
        if key not in row:
            raise CheckError(f"{MANIFEST} has no figures.{side}.{key}; null stands for an unknown figure")
    return {key: _figure(row[key], f"figures.{side}.{key}") for key in FIGURES}


def _figure(value: object, name: str) -> float | None:
    if value is None:
        return None
    # The upper end keeps whole numbers within what a float, and so every reader of the report, can hold.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e18:
        raise CheckError(f"{MANIFEST}: {name} must be a non-negative number, not {one_line(repr(value), 40)}")
    if name.endswith("sparsity") and value > 1:
        raise CheckError(f"{MANIFEST}: {name} must lie between 0 and 1, not {value}")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
