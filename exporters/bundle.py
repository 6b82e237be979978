"""The files beside the models that a device needs: golden inputs and outputs, and the manifest with hashes."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from exporters.errors import ExportError
from exporters.files import write_atomically

SCHEMA = 1
"""The version of manifest.json."""

MANIFEST = "manifest.json"
"""The manifest holds the hash of every other file in the folder of a bundle."""

FIGURES = ("size_bytes", "parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity")
"""What the manifest says of the baseline and of the compressed model."""

_PACKAGES = ("torch", "onnx", "onnxruntime", "compress-then-export")


def write_golden(folder: str | os.PathLike[str], inputs: ArrayLike, outputs: ArrayLike, labels: ArrayLike) -> Path:
    """Write golden.npz: samples, what torch made of them, and what they are.

    Args:
        folder: The bundle; must exist.
        inputs: float32 [N, ...].
        outputs: float32 [N, classes], torch's outputs of the folded model.
        labels: Integers [N].

    Returns:
        The path of the file.

    Raises:
        ExportError: the arrays do not fit together or hold NaN, or the file cannot be written.
    """
    samples = np.asarray(inputs, dtype=np.float32)
    answers = np.asarray(outputs, dtype=np.float32)
    classes = np.asarray(labels)
    if samples.ndim < 2 or answers.ndim != 2 or classes.ndim != 1:
        raise ExportError("inputs, outputs, labels: need shapes [N, ...], [N, classes] and [N]")
    if not samples.shape[0] == answers.shape[0] == classes.shape[0] or not classes.shape[0]:
        raise ExportError(
            f"inputs, outputs, labels: need the same number of samples, at least one; got {samples.shape[0]}, "
            f"{answers.shape[0]} and {classes.shape[0]}"
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ExportError(f"labels: need integers, not {classes.dtype}")
    for name, array in (("inputs", samples), ("outputs", answers)):
        if not np.isfinite(array).all():
            raise ExportError(f"{name}: holds NaN or infinite values; a golden sample must be finite")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=samples, outputs=answers, labels=classes.astype(np.int64))
    path = Path(folder) / "golden.npz"
    write_atomically(path, buffer.getvalue())
    return path


def write_manifest(
    folder: str | os.PathLike[str],
    *,
    recipe: Mapping[str, Any],
    seed: int,
    figures: Mapping[str, Mapping[str, int | float | None]],
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write manifest.json with size and SHA-256 of every other file in the folder; write it last.

    Args:
        folder: The bundle; must hold model.onnx.
        recipe: The resolved recipe, as JSON data.
        seed: The seed of the run.
        figures: ``{"baseline": F, "compressed": F}``, F with the keys of `FIGURES`.
        extra: Further top-level entries; they must not replace those of the schema.

    Returns:
        The path of the file.

    Raises:
        ExportError: model.onnx is missing, a figure is missing or not a number, something is not JSON data, or
            the file cannot be written.
    """
    root = Path(folder)
    if not (root / "model.onnx").is_file():
        raise ExportError(f"folder: {str(root)!r} holds no model.onnx; export the model first")
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": "compress-then-export",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: _fingerprint(root / name) for name in sorted(_names(root))},
        "recipe": dict(recipe),
        "seed": seed,
        "versions": versions(),
        "figures": {side: _figures(side, figures) for side in ("baseline", "compressed")},
    }
    for key, value in (extra or {}).items():
        if key in manifest:
            raise ExportError(f"extra: {key!r} is part of the manifest's schema; use another name")
        manifest[key] = value
    try:
        text = json.dumps(manifest, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"recipe, extra: not JSON data: {error}") from error
    path = root / MANIFEST
    write_atomically(path, (text + "\n").encode())
    return path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what an export looks like."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _names(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.is_file() and path.name != MANIFEST]


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return {"sha256": digest.hexdigest(), "size_bytes": path.stat().st_size}


def _figures(side: str, figures: Mapping[str, Mapping[str, int | float | None]]) -> dict[str, int | float | None]:
    given = figures.get(side)
    if given is None or set(given) != set(FIGURES):
        raise ExportError(f"figures: {side!r} needs exactly the entries {', '.join(FIGURES)}")
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise ExportError(f"figures: {side}.{name} is {value}, not a number")
    return {name: given[name] for name in FIGURES}
