from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime_check.arrays import open_archive
from runtime_check.errors import CheckError


def npz(compress: bool = True, **arrays: Any) -> io.BytesIO:
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **arrays)
    stream.seek(0)
    return stream


def zipped(members: dict[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    stream.seek(0)
    return stream


def npy(descr: str, shape: str, payload: bytes, fortran: bool = False) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


@given(
    hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<i8", "|u1", "<f2"]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
        elements=st.integers(0, 100),
    ),
    st.integers(1, 7),
    st.booleans(),
)
def test_reads_what_numpy_wrote_whole_and_in_batches(array, rows, compress):
    array = np.ascontiguousarray(array)
    with open_archive(npz(compress, a=array), "f.npz") as archive:
        assert archive.header("a").shape == array.shape
        np.testing.assert_array_equal(archive.read("a"), array)
        parts = list(archive.batches("a", rows))
    assert [len(part) for part in parts] == [min(rows, len(array) - s) for s in range(0, len(array), rows)]
    if parts:
        np.testing.assert_array_equal(np.concatenate(parts), array)


def test_object_arrays_are_refused_and_never_unpickled(monkeypatch):
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with (
        open_archive(npz(a=np.array([{}, None], dtype=object)), "f.npz") as archive,
        pytest.raises(CheckError, match="pickles"),
    ):
        archive.read("a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("<f4", "(1000000000000,)", b"\0" * 16), "claims"),
        (npy("<f4", "(2,)", b"\0" * 16), "claims"),
        (npy("<f4", "(-4,)", b"\0" * 16), "negative|not a NumPy"),
        (npy("<U4", "(1,)", b"\0" * 16), "plain numbers"),
        (npy("<c8", "(2,)", b"\0" * 16), "plain numbers"),
        (npy("<f4", "(2, 2)", b"\0" * 16, fortran=True), "Fortran"),
        (npy("<f4", "__import__('os').getcwd()", b""), "not a NumPy"),
        (b"junk", "not a NumPy"),
        (b"", "not a NumPy"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 200, "not a NumPy"),
    ],
)
def test_a_header_that_is_odd_or_lies_is_refused(content, message):
    with open_archive(zipped({"a.npy": content}), "f.npz") as archive, pytest.raises(CheckError, match=message):
        archive.read("a")


def test_damage_in_the_zip_is_one_clear_line():
    good = npz(a=np.random.default_rng(0).standard_normal(1000)).getvalue()
    broken = bytearray(good)
    broken[2000:2100] = bytes(100)
    with open_archive(io.BytesIO(bytes(broken)), "f.npz") as archive, pytest.raises(CheckError, match=r"f\.npz"):
        archive.read("a")
    with pytest.raises(CheckError, match=r"f\.npz is not an \.npz"), open_archive(io.BytesIO(good[:-30]), "f.npz"):
        pass


def test_missing_and_doubled_names_are_refused():
    with open_archive(npz(a=np.ones(2)), "f.npz") as archive, pytest.raises(CheckError, match=r"no array 'b'.*a"):
        archive.header("b")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as twice, pytest.warns(UserWarning, match="Duplicate"):
        twice.writestr("a.npy", b"1")
        twice.writestr("a.npy", b"2")
    with pytest.raises(CheckError, match="same name"), open_archive(stream, "f.npz"):
        pass
