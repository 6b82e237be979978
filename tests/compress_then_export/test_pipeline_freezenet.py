"""FreezeNet through a recipe: a dense network, a checkpoint of the seed in the bundle, resume, FreezeNet-WD."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from compress import sparsity_report, train
from compress.freezenet_checkpoint import load_freezenet
from compress.shrink import load_shrunk
from compress_then_export.cli import main
from compress_then_export.models import build

RECIPE = """
model: builtin:lenet5_caffe
data: {source: digits, train_size: 200, test_size: 60}
train: {batch_size: 50, lr: 0.05, weight_decay: 5.0e-4}
compress:
  - {method: freezenet, sparsity: 0.99, seed: 11, train: {epochs: 2}}
check: {max_drop: null, seconds: 0.1}
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(folder: Path, out: str, *settings: str) -> Result:
    (folder / "recipe.yaml").write_text(RECIPE)
    overrides = [word for setting in settings for word in (("--set", setting) if "=" in setting else (setting,))]
    command = ["run", str(folder / "recipe.yaml"), "--out", str(folder / out), "--json", *overrides]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made")
    return folder / "out", document(run(folder, "out"))


def test_a_frozen_network_is_dense_and_its_checkpoint_restores_it(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    assert {layer["sparsity"] for layer in report["layers"]} == {0}
    assert {layer["encoding"] for layer in report["layers"]} >= {"seeded"}
    assert report["compressed"]["size_bytes"] < 0.1 * report["baseline"]["size_bytes"]
    assert report["compressed"]["sparsity"] < 0.001  # biases of neurons that never fire are still zero
    assert {row["sparsity"] for row in report["training"]} == {0}
    assert report["masks"] == []
    assert "1-freezenet: trained_weights 4305" in report["notes"]
    assert report["parity"]["argmax_agreement"] == 1

    fresh = lambda: build("builtin:lenet5_caffe", num_classes=10, in_channels=1)  # noqa: E731
    restored = load_freezenet(fresh(), out / "freezenet.safetensors").eval()
    whole = load_shrunk(fresh(), out).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in restored.state_dict().items())
    assert sparsity_report(restored).sparsity == 0
    golden = np.load(out / "golden.npz")
    with torch.no_grad():
        outputs = restored(torch.from_numpy(golden["inputs"])).numpy()
    np.testing.assert_allclose(outputs, golden["outputs"], rtol=1e-4, atol=1e-5)
    assert (out / "freezenet.safetensors").stat().st_size < 27_000


@pytest.mark.slow
def test_resume_in_the_middle_of_training_gives_the_same_bits(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = train.save_checkpoint

    def stop(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        raise OSError("the machine went away")

    monkeypatch.setattr(train, "save_checkpoint", stop)
    assert run(tmp_path, "out").exit_code == 1
    monkeypatch.undo()
    resumed = run(tmp_path, "out", "--resume")
    assert "resumed after epoch 1 of 2" in resumed.stderr
    document(resumed)
    for name in ("model.onnx", "freezenet.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (made[0] / name).read_bytes()


def test_freezenet_wd_ends_pruned_without_a_seed(tmp_path: Path) -> None:
    report = document(run(tmp_path, "out", "compress.0.weight_decay=true", "compress.0.shrink=false"))
    assert sum(layer["nonzero_parameters"] for layer in report["layers"]) <= 4305 + 580
    assert any("still held" in warning for warning in report["verdict"]["warnings"])
    assert not (tmp_path / "out" / "freezenet.safetensors").exists()


def test_filter_bases_leave_kernels_whole_and_the_linear_layers_to_the_seed(tmp_path: Path) -> None:
    report = document(run(tmp_path, "out", "compress.0.interspace=fine", "compress.0.train.epochs=1"))
    encodings = {layer["name"].split(".")[0]: layer["encoding"] for layer in report["layers"]}
    assert encodings["fc1"] == "seeded"
    assert encodings["conv1"] != "seeded"
    assert report["parity"]["argmax_agreement"] == 1
    fresh = lambda: build("builtin:lenet5_caffe", num_classes=10, in_channels=1)  # noqa: E731
    restored = load_freezenet(fresh(), tmp_path / "out" / "freezenet.safetensors").state_dict()
    whole = load_shrunk(fresh(), tmp_path / "out").state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in restored.items())


def test_seeded_is_refused_before_training_where_only_coefficients_are_frozen(tmp_path: Path) -> None:
    settings = ("compress.0.interspace=fine", "compress.0.exclude=[fc*]", "export.encoding=seeded")
    result = run(tmp_path, "out", *settings)
    assert result.exit_code != 0
    assert "export.encoding: seeded needs weights out of a seed" in result.stderr
    assert "train" not in result.stderr.split("export.encoding")[0]


@pytest.mark.slow
def test_a_shrunk_network_has_no_checkpoint_of_the_seed_and_the_report_says_why(tmp_path: Path) -> None:
    first = "{method: one_shot, structure: filters, sparsity: 0.5, train: {epochs: 0}}"
    last = "{method: freezenet, sparsity: 0.99, train: {epochs: 1}}"
    report = document(run(tmp_path, "out", f"compress=[{first}, {last}]"))
    assert not (tmp_path / "out" / "freezenet.safetensors").exists()
    (note,) = [note for note in report["notes"] if note.startswith("freezenet.safetensors: ")]
    assert "a stage shrunk this one; model.safetensors with plan.json holds it" in note


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("compress.0.seed=4294967296", "compress.0.seed: 4294967296 is not a 32-bit number"),
        ("compress.0.initialisation=xavier", "compress.0.initialisation: 'xavier' is not one of xavier_normal"),
        ("compress.0.weight_decay=0.0005", "compress.0.weight_decay: 0.0005 is not true or false"),
        ("compress.0.weightdecay=true", "did you mean 'weight_decay'"),
        ("compress.0.weight_decay=true", "export.encoding: seeded needs weights out of a seed"),
    ],
)
def test_what_is_wrong_is_named_before_training(setting: str, message: str, tmp_path: Path) -> None:
    result = run(tmp_path, "out", setting, "export.encoding=seeded")
    assert result.exit_code != 0
    assert message in result.stderr
