from __future__ import annotations

import json
import os

import numpy as np
import onnxruntime
import pytest

from runtime_check import bundle as bundle_module
from runtime_check.bundle import read_bundle
from runtime_check.errors import CheckError
from runtime_check.verification import verify


def refused(folder, message):
    with pytest.raises(CheckError, match=message) as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_good_bundle_is_read(make_bundle, weight):
    folder = make_bundle(files={"plan.json": b"{}"})
    found = read_bundle(folder)
    assert found.model == (folder / "model.onnx").read_bytes()
    assert found.baseline == (folder / "dense.onnx").read_bytes()
    np.testing.assert_allclose(found.golden.outputs, found.golden.inputs @ weight)
    assert found.golden.labels.dtype == np.int64
    assert found.figures["compressed"]["nonzero_parameters"] == 12


@pytest.mark.parametrize("name", ["model.onnx", "dense.onnx", "golden.npz", "plan.json"])
def test_a_changed_byte_is_found_before_onnxruntime_sees_the_file(name, make_bundle, monkeypatch):
    folder = make_bundle(files={"plan.json": b"{}"})
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("onnxruntime was asked"))
    with pytest.raises(CheckError, match=rf"{name} does not match its sha256"):
        verify(folder)


def test_truncated_and_missing_files_are_named(make_bundle):
    folder = make_bundle()
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])
    refused(folder, r"model\.onnx has \d+ bytes but the manifest says")
    (folder / "model.onnx").unlink()
    refused(folder, r"model\.onnx is missing")
    (folder / "manifest.json").unlink()
    refused(folder, r"manifest\.json is missing")
    refused(folder / "nowhere", "not a bundle folder")


@pytest.mark.parametrize("name", ["../secret", "a/b", "/etc/passwd", "..", ".", "", "a\\b", "C:x", "a\nb", ".hidden"])
def test_names_that_are_not_plain_are_refused(name, make_bundle):
    def add(manifest):
        manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 0}

    refused(make_bundle(change=add), "not a plain file name")


def test_links_may_not_lead_out(make_bundle, tmp_path):
    folder = make_bundle()
    outside = tmp_path / "elsewhere.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "model.onnx").symlink_to(outside)
    refused(folder, r"model\.onnx is a link that leads out")
    (folder / "model.onnx").unlink()
    outside.rename(folder / "kept.onnx")
    (folder / "model.onnx").symlink_to("kept.onnx")
    read_bundle(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    refused(folder, r"model\.onnx cannot be read|model\.onnx is missing")


def test_the_folder_itself_may_be_a_link(make_bundle, tmp_path):
    (tmp_path / "latest").symlink_to(make_bundle())
    read_bundle(tmp_path / "latest")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(make_bundle):
    folder = make_bundle()
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    refused(folder, "not a regular file")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema=2), "schema 2"),
        (lambda m: m.pop("schema"), "schema None"),
        (lambda m: m.update(files=[]), "'files'"),
        (lambda m: m["files"].pop("golden.npz"), r"does not list golden\.npz"),
        (lambda m: m["files"].update({"model.onnx": 3}), r"entry of model\.onnx"),
        (lambda m: m["files"]["model.onnx"].update(sha256="A" * 64), r"sha256 of model\.onnx"),
        (lambda m: m["files"]["model.onnx"].update(sha256=None), r"sha256 of model\.onnx"),
        (lambda m: m["files"]["model.onnx"].update(size_bytes=-1), r"size_bytes of model\.onnx"),
        (lambda m: m["files"]["model.onnx"].update(size_bytes=True), r"size_bytes of model\.onnx"),
        (lambda m: m.pop("figures"), r"figures\.baseline"),
        (lambda m: m["figures"]["compressed"].pop("macs"), r"figures\.compressed\.macs"),
        (lambda m: m["figures"]["baseline"].update(macs=-1), r"figures\.baseline\.macs"),
        (lambda m: m["figures"]["baseline"].update(macs=10**400), r"figures\.baseline\.macs"),
        (lambda m: m["figures"]["baseline"].update(sparsity=1.5), r"figures\.baseline\.sparsity"),
        (lambda m: m["figures"]["baseline"].update(macs="1"), r"figures\.baseline\.macs"),
    ],
)
def test_a_wrong_manifest_says_where(edit, message, make_bundle):
    refused(make_bundle(change=edit), message)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b'{"schema": NaN}', b"[" * 100_000, b'{"schema": ' + b"1" * 5000 + b"}"]
)
def test_a_manifest_that_is_not_json_is_refused(content, make_bundle):
    folder = make_bundle()
    (folder / "manifest.json").write_bytes(content)
    refused(folder, r"manifest\.json")


def test_an_endless_manifest_is_not_read(make_bundle, monkeypatch):
    folder = make_bundle()
    monkeypatch.setattr(bundle_module, "_MAX_MANIFEST_BYTES", 100)
    refused(folder, r"manifest\.json is larger than 100")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((0, 6), np.float32)}, "no samples"),
        ({"inputs": np.float32(1)}, "no samples"),
        ({"inputs": np.zeros((64, 6), np.int64)}, "'inputs' must hold floats"),
        ({"inputs": np.full((64, 6), np.nan, np.float32)}, "NaN or infinity"),
        ({"outputs": np.zeros((63, 4), np.float32)}, r"'outputs' must have shape \[64, classes\]"),
        ({"outputs": np.zeros(64, np.float32)}, "'outputs' must have shape"),
        ({"labels": np.zeros(63, np.int64)}, r"'labels' must have shape \[64\]"),
        ({"labels": np.zeros(64, np.float32)}, "'labels' must hold integers"),
        ({"labels": np.full(64, 4)}, "between 0 and 3"),
        ({"labels": np.full(64, -1)}, "between 0 and 3"),
        ({"labels": np.array([None] * 64)}, "pickles"),
    ],
)
def test_a_wrong_sample_says_where(arrays, message, make_bundle):
    refused(make_bundle(arrays=arrays), message)


def test_a_sample_that_unpacks_to_too_much_is_refused(make_bundle, monkeypatch):
    folder = make_bundle(arrays={"inputs": np.zeros((64, 100_000), np.float32)})
    assert (folder / "golden.npz").stat().st_size < 200_000
    monkeypatch.setattr(bundle_module, "_MAX_GOLDEN_BYTES", 1_000_000)
    monkeypatch.setattr(bundle_module.Archive, "read", lambda *_: pytest.fail("unpacked"))
    refused(folder, "unpacks to 25601536")


def test_manifest_round_trip_is_plain_json(make_bundle):
    folder = make_bundle()
    assert read_bundle(folder).manifest == json.loads((folder / "manifest.json").read_text())
