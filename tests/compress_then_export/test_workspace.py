"""The output folder: whole or absent."""

import json
import os
from pathlib import Path

import pytest

from compress_then_export.workspace import Workspace, WorkspaceError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publish_replaces_an_older_bundle_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    for number in range(2):
        text = json.dumps({"tool": "compress-then-export", "files": {}, "number": number})
        workspace = Workspace(out)
        (workspace.bundle / "manifest.json").write_text(text)
        (workspace.checkpoints / "a.ckpt").write_text("x")
        workspace.publish()
        assert (out / "manifest.json").read_text() == text
        assert names(out.parent) == ["bundle"]


def test_abandon_keeps_checkpoints_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    (workspace.bundle / "model.onnx").write_text("half")
    assert not workspace.abandon()
    assert names(tmp_path) == []
    workspace = Workspace(tmp_path / "out")
    (workspace.bundle / "model.onnx").write_text("half")
    (workspace.checkpoints / "train.ckpt").write_text("x")
    assert workspace.abandon()
    assert names(tmp_path) == ["out.partial"]
    assert names(tmp_path / "out.partial") == ["checkpoints", "unfinished-run.txt"]


def test_an_unfinished_run_is_neither_lost_nor_mixed_up(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    (workspace.checkpoints / "train.ckpt").write_text("x")
    del workspace  # as when the process was killed: the lock goes, the files stay
    with pytest.raises(WorkspaceError, match="add --resume"):
        Workspace(tmp_path / "out")
    again = Workspace(tmp_path / "out", resume=True)
    assert (again.checkpoints / "train.ckpt").read_text() == "x"


def test_resume_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no unfinished run"):
        Workspace(tmp_path / "out", resume=True)
    assert names(tmp_path) == []


def test_other_peoples_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match="no bundle"):
        Workspace(tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").unlink()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="no bundle"):
        Workspace(tmp_path / "out")
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "precious").write_text("x")
    with pytest.raises(WorkspaceError, match="not of this tool"):
        Workspace(tmp_path / "new")
    (tmp_path / "new.partial" / "precious").unlink()
    (tmp_path / "new.partial").rmdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="is a file"):
        Workspace(tmp_path / "file")
    assert names(tmp_path) == ["file", "out"]


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_folders_that_cannot_be_replaced(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="name a folder inside it"):
        Workspace(Path(out))
    assert names(tmp_path) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "bundle")
    workspace = Workspace(tmp_path / "out")
    assert workspace.partial == tmp_path / "disk" / "bundle.partial"
    (workspace.bundle / "model.onnx").write_text("x")
    workspace.publish()
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "out" / "model.onnx").read_text() == "x"
    assert names(tmp_path / "disk") == ["bundle"]


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    first = Workspace(tmp_path / "out")
    (first.bundle / "model.onnx").write_text("x")
    for resume in (False, True):
        with pytest.raises(WorkspaceError, match="another run is at work"):
            Workspace(tmp_path / "out", resume=resume)
    first.publish()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["model.onnx"]


def test_parents_made_for_nothing_go_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert not Workspace(tmp_path / "mine" / "new" / "newer" / "out").abandon()
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == []


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(WorkspaceError, match="cannot write"):
        Workspace(tmp_path / "plain" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(WorkspaceError, match="cannot write"):
            Workspace(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)
