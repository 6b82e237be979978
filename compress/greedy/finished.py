"""What is done already, one file a group, so that a search that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Mapping[str, NDArray[Any]]


class Finished:
    """Named arrays in a folder, each file there whole or not at all; without a folder nothing is kept.

    Args:
        folder: where, or None.
        fingerprint: what the files belong to.

    Raises:
        ValueError: the folder holds those of another search.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.npz")) and self.get("search") is None:
            raise ValueError(
                f"folder: {folder} holds another search (model, data, settings or stopwatch differ); delete it to "
                "search anew, or give another folder"
            )
        self.put("search", {})

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What was put under this name, or None. A damaged file counts as none."""
        if self.folder is None:
            return None
        try:
            with np.load(self._path(name), allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
        except (OSError, ValueError, BadZipFile, EOFError):
            return None
        return arrays if str(arrays.pop("fingerprint", "")) == self.fingerprint else None

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name, replacing what is there."""
        if self.folder is None:
            return
        path = self._path(name)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, fingerprint=np.array(self.fingerprint), **arrays)  # type: ignore[arg-type]
        partial.replace(path)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / (re.sub(r"[^\w.-]+", "-", name) + ".npz")


def fingerprint(model: nn.Module, tensors: Iterable[Tensor], settings: str) -> str:
    """A digest of the model's state and `repr`, the data and the settings; it is the same in another process."""
    description = re.sub(r" at 0x[0-9a-f]+", "", f"{model!r} {settings}")
    digest = hashlib.sha256(description.encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(name.encode())
            _update(digest, tensor)
    for tensor in tensors:
        _update(digest, tensor)
    return digest.hexdigest()


def _update(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
