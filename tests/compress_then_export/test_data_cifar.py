from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from data_checks import random_bytes, refused

from compress_then_export.data import cifar as cifar_module
from compress_then_export.data import open_data
from compress_then_export.data.pickles import RefusedPickle, load_plain


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes what Python 2's cPickle wrote: text and bytes as BINSTRING, numpy under its old names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: bytes | str) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        if len(content) < 256:
            self.write(b"U" + struct.pack("<B", len(content)) + content)
        else:
            self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    def save_name(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_string
    dispatch[str] = save_string
    dispatch[type(pickle.dumps)] = save_name
    dispatch[type(lambda: 0)] = save_name
    dispatch[type] = save_name


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def cifar_files(*, fine: bool, binary: bool, count: int = 4) -> tuple[dict[str, bytes], torch.Tensor, torch.Tensor]:
    """All files of a tiny CIFAR in the official layout, and the training images and labels that they hold."""
    names = (["train"], ["test"]) if fine else ([f"data_batch_{n}" for n in range(1, 6)], ["test_batch"])
    files, images, labels = {}, [], []
    for index, name in enumerate([*names[0], *names[1]]):
        pixels = random_bytes(index, count, 3072)
        numbers = np.random.default_rng(index).integers(0, 100 if fine else 10, count)
        if binary:
            coarse = [np.zeros((count, 1), np.uint8)] if fine else []
            record = np.concatenate([*coarse, numbers[:, None].astype(np.uint8), pixels], axis=1)
            files[f"{name}.bin"] = record.tobytes()
        else:
            batch: dict[str, Any] = {
                "batch_label": name,
                "fine_labels" if fine else "labels": [int(n) for n in numbers],
                "data": pixels,
                "filenames": [f"image_{n}.png" for n in range(count)],
            }
            if fine:
                batch["coarse_labels"] = [0] * count
            files[name] = python2_pickle(batch)
        if name in names[0]:
            images.append(pixels)
            labels.append(numbers)
    return (
        files,
        torch.from_numpy(np.concatenate(images).reshape(-1, 3, 32, 32)),
        torch.from_numpy(np.concatenate(labels)),
    )


def cifar_folder(*, fine: bool, binary: bool) -> str:
    if fine:
        return "cifar-100-binary" if binary else "cifar-100-python"
    return "cifar-10-batches-bin" if binary else "cifar-10-batches-py"


def cifar_archive(*, fine: bool, binary: bool) -> str:
    return f"cifar-{100 if fine else 10}-{'binary' if binary else 'python'}.tar.gz"


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("place", ["folder", "parent", "archive", "archive's folder"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path: Path, fine: bool, binary: bool, place: str) -> None:
    files, images, labels = cifar_files(fine=fine, binary=binary)
    folder = cifar_folder(fine=fine, binary=binary)
    archive = tmp_path / cifar_archive(fine=fine, binary=binary)
    if "archive" in place:
        write_tar(archive, {f"{folder}/{name}": content for name, content in files.items()})
        where = archive if place == "archive" else tmp_path
    else:
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
        where = tmp_path / folder if place == "folder" else tmp_path
    data = open_data({"source": f"cifar{100 if fine else 10}:{where}"}, input_shape=(3, 32, 32))
    assert data.num_classes == (100 if fine else 10)
    assert torch.equal(data.train.images, images) and torch.equal(data.train.labels, labels)
    assert len(data.test) == 4
    assert data.augmentation is not None and data.augmentation.mirror and data.augmentation.shift == 4


def test_python3_pickles_of_the_same_content_are_read_too() -> None:
    batch = {b"data": random_bytes(0, 3, 3072), b"labels": [1, 2, 3]}
    for protocol in (2, 4):
        loaded = load_plain(pickle.dumps(batch, protocol=protocol))
        assert np.array_equal(loaded[b"data"], batch[b"data"]) and loaded[b"labels"] == [1, 2, 3]


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickles_with_code_are_refused_and_not_executed(tmp_path: Path) -> None:
    files, _, _ = cifar_files(fine=False, binary=False)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Bomb(tmp_path / "executed")}))
    refused(f"cifar10:{tmp_path}", "data_batch_3", "refused", "mkdir")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value", [np.zeros(3), np.array(["a"], dtype=object), np.zeros(2, np.complex64), print, {1, 2}.__class__]
)
def test_pickles_admit_byte_arrays_only(value: Any) -> None:
    with pytest.raises(RefusedPickle):
        load_plain(pickle.dumps({b"data": value}, protocol=2))


def test_a_pickled_array_cannot_claim_memory() -> None:
    # REDUCE of _reconstruct with a shape of 2**40 elements and no state: an empty array, not a terabyte.
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85U\x01b\x87R."
    )
    assert load_plain(content).shape == (0,)
    with pytest.raises(RefusedPickle, match="damaged"):
        load_plain(content[:-3])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([1], "holds a list"),
        ({"data": [1, 2], "labels": [0]}, "no b'data' of uint8"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, "3072 columns"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "no list of labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1000]}, "no list of labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images but 1 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, "test label 10 lies outside 0..9"),
    ],
)
def test_cifar_pickles_of_wrong_content(tmp_path: Path, batch: Any, words: str) -> None:
    files, _, _ = cifar_files(fine=False, binary=False)
    files["test_batch"] = python2_pickle(batch)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    refused(f"cifar10:{tmp_path}", words)


def test_incomplete_cifar(tmp_path: Path) -> None:
    refused(f"cifar10:{tmp_path}", "cifar-10-batches-bin", "cifar-10-python.tar.gz")
    files, _, _ = cifar_files(fine=False, binary=True)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data_batch_2.bin").unlink()
    refused(f"cifar10:{tmp_path}", "data_batch_2.bin does not exist")
    (tmp_path / "data_batch_2.bin").write_bytes(files["data_batch_2.bin"][:-1])
    refused(f"cifar10:{tmp_path}", "data_batch_2.bin has 12291 bytes", "3073")
    (tmp_path / "data_batch_2.bin").write_bytes(b"")
    refused(f"cifar10:{tmp_path}", "has 0 bytes")


def test_cifar_archives_are_read_in_memory_whatever_their_paths_say(tmp_path: Path) -> None:
    files, images, _ = cifar_files(fine=False, binary=True)
    folder = "cifar-10-batches-bin"
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = inner / "cifar-10-binary.tar.gz"
    outside = {f"{folder}/{name}": content for name, content in files.items()}
    write_tar(archive, {"../escaped.txt": b"x", "/tmp/escaped-absolute.txt": b"x", **outside})
    data = open_data({"source": f"cifar10:{archive}"})
    assert torch.equal(data.train.images, images)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "inner"]


def test_cifar_archives_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _, _ = cifar_files(fine=False, binary=True)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    members = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    incomplete = dict(members)
    del incomplete["cifar-10-batches-bin/test_batch.bin"]
    write_tar(archive, incomplete)
    refused(f"cifar10:{archive}", "has no file test_batch.bin")
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    refused(f"cifar10:{archive}", "test_batch.bin is no file")
    write_tar(archive, members)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    refused(f"cifar10:{archive}", "truncated or damaged")
    archive.write_bytes(b"no archive")
    refused(f"cifar10:{archive}", "truncated or damaged")
    monkeypatch.setattr(cifar_module, "_MOST_MEMBERS", 3)
    write_tar(archive, members)
    refused(f"cifar10:{archive}", "more than 3 members")
