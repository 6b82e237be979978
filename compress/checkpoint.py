"""Checkpoint files: written whole or not at all, read without executing anything."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears at ``path``, whose folder is made, when all of it is on the disk, or not at all.

    Raises:
        OSError: the folder is not writable or full; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts); a crash leaves the old file or the new.

    Raises:
        OSError: the folder is not writable or full; the old file is untouched.
    """
    with written_whole(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(errno.ENOSPC, "cannot write the checkpoint, the disk may be full", str(path)) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Raises:
        ValueError: the file is truncated or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to start over"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of this tool; delete it to start over")
    return state
