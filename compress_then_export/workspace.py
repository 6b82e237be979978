"""The output folder: nothing half-written, nothing lost.

A run works in ``OUT.partial`` beside OUT: checkpoints first, then the bundle. When all is done the bundle is
renamed to OUT in one step. A run that stopped leaves ``OUT.partial`` for ``--resume``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

MARKER = "unfinished-run.txt"


class WorkspaceError(ValueError):
    """The output folder cannot be used: one line that says what to do."""


class Workspace:
    """The folder of one run.

    Args:
        out: where the bundle goes; it may hold an older bundle, which is replaced at the very end.
        resume: go on with the checkpoints of a run that stopped.

    Raises:
        WorkspaceError: OUT holds something else than a bundle, an unfinished run is there without ``resume``
            (or none is with it), or the folder cannot be written.
    """

    def __init__(self, out: Path, *, resume: bool = False) -> None:
        self.out = out.resolve()  # where OUT is a link, the bundle goes where it points to
        self.partial = self.out.parent / (self.out.name + ".partial")
        self._check_target()
        self._made = [folder for folder in (self.partial, *self.partial.parents) if not folder.exists()]
        self._lock = FileLock(self.partial / "lock")
        if resume and self._made:
            raise WorkspaceError(f"--resume: there is no unfinished run at {self.partial}; run without --resume")
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self._check_unfinished(resume)
            shutil.rmtree(self.bundle, ignore_errors=True)
            self.checkpoints.mkdir(exist_ok=True)
            self.bundle.mkdir()
            (self.partial / MARKER).write_text("compress-then-export works here; delete it to start over\n")
        except Timeout as error:
            raise WorkspaceError(f"--out: another run is at work in {self.partial}; choose another folder") from error
        except WorkspaceError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            self._remove_made()
            raise WorkspaceError(f"--out: cannot write to {self.out} ({error.strerror})") from error

    def _check_target(self) -> None:
        out, partial = self.out, self.partial
        if out == Path.cwd() or out.is_mount():  # neither can be replaced as a whole
            raise WorkspaceError(f"--out: {out} cannot be replaced as a whole; name a folder inside it")
        if out.exists() and not out.is_dir():
            raise WorkspaceError(f"--out: {out} is a file; name a folder")
        if out.exists() and any(out.iterdir()) and not _is_bundle(out):
            raise WorkspaceError(f"--out: {out} holds files that are no bundle; choose another folder or empty it")
        if partial.exists() and not (partial / MARKER).exists():
            raise WorkspaceError(f"--out: {partial} is in the way and not of this tool; move it or choose another name")

    def _check_unfinished(self, resume: bool) -> None:
        unfinished = self.checkpoints.exists() and any(self.checkpoints.iterdir())
        if resume and not unfinished:
            raise WorkspaceError(f"--resume: there is no unfinished run at {self.partial}; run without --resume")
        if unfinished and not resume:
            raise WorkspaceError(
                f"--out: {self.partial} holds an unfinished run; add --resume to go on, or delete that folder"
            )

    def _remove_made(self) -> None:
        """Remove the folders that were missing before, innermost first, as far as they are empty."""
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """One checkpoint a training stage."""
        return self.partial / "checkpoints"

    @property
    def bundle(self) -> Path:
        """The bundle while it is being made."""
        return self.partial / "bundle"

    def publish(self) -> None:
        """Make the bundle appear at OUT as a whole and remove what only the run needed."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        old = Path(tempfile.mkdtemp(prefix=self.out.name + ".old-", dir=self.out.parent)) / "bundle"
        if self.out.exists():
            self.out.rename(old)
        try:
            self.bundle.rename(self.out)
        finally:
            if not self.out.exists() and old.exists():
                old.rename(self.out)
            shutil.rmtree(old.parent, ignore_errors=True)
        self._lock.release()
        shutil.rmtree(self.partial, ignore_errors=True)

    def abandon(self) -> bool:
        """After an error: keep the folder if it holds a checkpoint, else remove it. True: it was kept."""
        shutil.rmtree(self.bundle, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        if self.checkpoints.exists() and any(self.checkpoints.iterdir()):
            return True
        shutil.rmtree(self.partial, ignore_errors=True)
        with suppress(ValueError):
            self._made.remove(self.partial)
        self._remove_made()
        return False


def _is_bundle(folder: Path) -> bool:
    """A folder that this tool made: its manifest says so and lists every file in it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        listed = {"manifest.json", *manifest["files"]}  # a family has folders
        files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        found = {path.relative_to(folder).as_posix() for path in files}
        return manifest["tool"] == "compress-then-export" and found <= listed
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_json(path: Path, document: object) -> None:
    """Write strict JSON (no NaN), readable by people."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
