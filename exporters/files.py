"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from exporters.errors import ExportError


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, check: Callable[[Path], None] | None = None
) -> None:
    """Write ``content`` to ``path`` through a temporary file in the same folder.

    Args:
        path: The file to create or replace; its folder must exist.
        content: The bytes to write.
        check: Called with the temporary file before it takes the name ``path``; what it raises leaves
            ``path`` as it was.

    Raises:
        ExportError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    check_target(target)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)
        # mkstemp makes files only the owner may read; a model is an ordinary file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"path: cannot write {str(target)!r}: {reason}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """Raise ExportError when no file can be called ``target``; asked before long work, not after it."""
    if not target.parent.is_dir():
        raise ExportError(f"path: the folder {str(target.parent)!r} does not exist; create it first")
    if target.is_dir():
        raise ExportError(f"path: {str(target)!r} is a folder; name a file in it")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ExportError(f"path: the folder {str(target.parent)!r} is not writable; choose another one")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
