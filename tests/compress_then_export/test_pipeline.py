"""The whole path on small real data: what the contract promises of the bundle, the report and the exit codes."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from compress.shrink import load_shrunk
from compress_then_export import delivery, pipeline
from compress_then_export.cli import main
from compress_then_export.models import build

RECIPE = """
model: {source: "builtin:smallcnn", args: {width: 8}}
data: {source: digits, train_size: 320, test_size: 60}
train: {epochs: 2, batch_size: 32, lr: 0.05, seed: 3}
compress:
  - {method: dpf, structure: filters, sparsity: 0.4, train: {epochs: 2}}
  - {method: one_shot, sparsity: 0.7, train: {epochs: 1}}
export: {encoding: auto}
check: {max_drop: 100, seconds: 0.2}
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made")
    (folder / "recipe.yaml").write_text(RECIPE)
    result = invoke("run", folder / "recipe.yaml", "--out", folder / "out", "--json")
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads(result.stdout)


def never(*_: object, **__: object) -> None:
    raise AssertionError("training began")


FIGURES = {
    "accuracy",
    "latency_ms",
    "size_bytes",
    "parameters",
    "nonzero_parameters",
    "macs",
    "nonzero_macs",
    "sparsity",
}


def test_the_bundle_holds_what_the_contract_says(made: tuple[Path, dict[str, Any]]) -> None:
    out, document = made
    names = {path.name for path in out.iterdir()}
    assert names >= {"model.onnx", "dense.onnx", "golden.npz", "manifest.json", "report.json", "report.html"}
    assert json.loads((out / "report.json").read_text()) == document
    for side in ("baseline", "compressed"):
        assert document[side].keys() >= FIGURES
        assert document[side]["latency_ms"].keys() >= {"median", "p10", "p90", "runs", "threads"}
        assert (
            document[side]["size_bytes"]
            == (out / {"baseline": "dense.onnx", "compressed": "model.onnx"}[side]).stat().st_size
        )
    assert document["speedup"].keys() >= {"median", "ci95"}
    assert document["parity"].keys() >= {"max_abs_diff", "max_rel_diff", "argmax_agreement"}
    assert [stage["name"] for stage in document["stages"]][:2] == ["load", "train"]
    assert document["environment"]
    assert document["verdict"]["passed"] is True
    assert document["compressed"]["nonzero_parameters"] < 0.5 * document["baseline"]["parameters"]
    assert not list(out.parent.glob("*.partial"))


def test_manifest_hashes_every_file(made: tuple[Path, dict[str, Any]]) -> None:
    out, _ = made
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in out.iterdir()} - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (out / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    assert manifest["recipe"]["compress"][0]["ramp_steps"] == 15  # 3/4 of 2 epochs of 10 steps
    assert manifest["seed"] == 3
    assert manifest["versions"].keys() >= {"python", "torch", "onnx", "onnxruntime"}
    assert manifest["preprocessing"]["input_shape"] == [1, 28, 28]


def test_the_onnx_file_says_where_it_comes_from(made: tuple[Path, dict[str, Any]]) -> None:
    out, document = made
    said = {item.key: item.value for item in onnx.load(out / "model.onnx").metadata_props}
    assert json.loads(said["recipe"]) == document["recipe"]
    metrics = json.loads(said["metrics"])
    assert metrics["accuracy"] == pytest.approx(document["compressed"]["accuracy"])
    assert metrics["nonzero_parameters"] < metrics["parameters"]
    assert json.loads(said["versions"]).keys() >= {"torch", "onnx", "onnxruntime", "compress-then-export"}
    assert len(said["weights_sha256"]) == 64


def test_report_tells_the_training_and_the_masks(made: tuple[Path, dict[str, Any]]) -> None:
    out, document = made
    assert [row["stage"] for row in document["training"]] == ["train"] * 2 + ["1-dpf"] * 2 + ["2-one_shot"]
    assert {row["stage"] for row in document["masks"]} == {"1-dpf", "2-one_shot"}
    assert len(document["layers"]) == 5
    assert all(layer["baseline_shape"] for layer in document["layers"])
    html = (out / "report.html").read_text()
    assert "features.0.weight" in html
    assert "src=" not in html


def test_the_shrunk_torch_model_loads_into_a_fresh_one(made: tuple[Path, dict[str, Any]]) -> None:
    out, document = made
    model = load_shrunk(build("builtin:smallcnn", args={"width": 8}, num_classes=10, in_channels=1), out).eval()
    with np.load(out / "golden.npz", allow_pickle=False) as golden, torch.no_grad():
        outputs = model(torch.from_numpy(golden["inputs"]))
        torch.testing.assert_close(outputs, torch.from_numpy(golden["outputs"]), rtol=1e-5, atol=1e-5)
    shapes = [layer["shape"] for layer in document["layers"]]
    assert list(model.features[0].weight.shape) == shapes[0]
    assert shapes[0][0] < 8


def test_a_killed_run_resumes_to_the_same_file(made: tuple[Path, dict[str, Any]], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "compress_then_export", "run", str(recipe), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out.partial" / "checkpoints" / "1-dpf.ckpt").exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()

    refused = invoke("run", recipe, "--out", out)
    assert refused.exit_code == 2
    assert "add --resume" in refused.stderr
    other = invoke("run", recipe, "--out", out, "--resume", "--set", "train.lr=0.04")
    assert other.exit_code == 1
    assert "belongs to another training" in other.stderr

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "resumed after epoch 2 of 2" in done.stderr
    assert (out / "model.onnx").read_bytes() == (made[0] / "model.onnx").read_bytes()


def test_a_corrected_later_stage_does_not_cost_the_stages_that_are_done(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = invoke("--quiet", "run", recipe, "--out", out, "--set", "compress.1.train.lr=1e30")
    assert stopped.exit_code == 1
    assert "the loss became" in stopped.stderr
    quick = ["--set", "compress.1.train.epochs=0", "--set", "check.seconds=0.1"]
    result = invoke("run", recipe, "--out", out, "--resume", *quick)
    assert result.exit_code == 0, result.stderr
    assert "1-dpf: resumed after epoch 2 of 2" in result.stderr


def test_the_check_can_go_without_the_kernels(recipe: Path, tmp_path: Path) -> None:
    quick = ["--set", "train.epochs=0", "--set", "compress=[]", "--set", "check.seconds=0.1", "--json"]
    for option, kernels in ((["--no-kernels"], False), (["--set", "check.kernels=false", "--kernels"], True)):
        result = invoke("run", recipe, "--out", tmp_path / f"out{len(option)}", *quick, *option)
        document = json.loads(result.stdout)
        assert document["recipe"]["check"]["kernels"] is kernels
        assert document["environment"]["sparse_kernels"].startswith("turned off") is not kernels


def test_missed_gate_is_exit_3_with_the_bundle_written(recipe: Path, tmp_path: Path) -> None:
    quick = ["--set", "train.epochs=0", "--set", "compress=[]", "--set", "check.min_speedup=1000"]
    result = invoke("run", recipe, "--out", tmp_path / "out", *quick)
    assert result.exit_code == 3
    assert "MISSED" in result.stdout
    assert re.search(r"^model.onnx: (sparse kernels run|no layer was offered)", result.stdout, re.MULTILINE)
    assert "the baseline was never trained" in result.stdout
    assert (tmp_path / "out" / "report.html").exists()


def spoil(out: Path) -> None:
    content = bytearray((out / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "model.onnx").write_bytes(content)


def test_runtime_check_reads_the_bundle_and_refuses_a_changed_one(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made[0], copy)
    command = [sys.executable, "-m", "runtime_check", "verify", str(copy), "--seconds", "0.2", "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["compressed"]["size_bytes"] == made[1]["compressed"]["size_bytes"]
    spoil(copy)
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "model.onnx does not match its sha256" in result.stderr


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("model.source=builtin:resnet21", 2, "did you mean"),
        ("model.args={widht: 8}", 1, "widht"),
        ("model.source=torchvision:resnet99", 2, "resnet99"),
        ("model.source=python:no_such_module:make", 2, "no_such_module"),
        ("model.weights=missing.safetensors", 1, "missing.safetensors"),
        ("data.source=digit", 2, "did you mean 'digits'"),
        ("data.source=cifar10:/nowhere", 1, "/nowhere"),
        ("data.train_szie=3", 2, "train_szie"),
        ("compress.0.method=dfp", 2, "did you mean 'dpf'"),
        ("compress.0.sparsity=1", 2, "compress.0.sparsity: 1 is not"),
        ("compress.1.exclude=[nothing.*]", 2, "compress.1.exclude: 'nothing.*' matches no"),
        ("compress.0.sparsity=0.99", 2, "compress.0.sparsity: 0.99 keeps"),
        ("compress.1={method: lottery_ticket}", 2, "compress.1.round_steps: 0 is not the length of a training"),
        ("compress.1={method: lottery_ticket, rewind_step: 10, train: {epochs: 1}}", 2, "compress.1.rewind_step: 10"),
        ("compress.1={method: rigl, distribution: global}", 2, "compress.1.distribution: 'global'"),
        ("compress.0.interspace=corse", 2, "compress.0.interspace: 'corse' is not one of"),
        ("compress.0.interspace=in_999", 2, "compress.0.interspace: 'in_999' fits no layer"),
        ("train.device=gpu9", 2, "train.device"),
        ("train.device=meta", 2, "train.device"),
        ("train.epochs=-1", 2, "train.epochs: -1 is not"),
        ("compress.1.train.device=gpu9", 2, "compress.1.train.device"),
        ("train.seed=-1", 2, "train.seed: -1 is not"),
        ("check.threads=[]", 2, "check.threads"),
        ("check.threads=[0]", 2, "check.threads"),
        ("check.seconds=0", 2, "check.seconds"),
        ("check.min_speedup=.nan", 2, "check.min_speedup"),
    ],
)
def test_bad_input_is_one_line_before_any_training_and_leaves_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, code: int, message: str
) -> None:
    monkeypatch.setattr(pipeline, "fit", never)
    result = invoke("--quiet", "run", recipe, "--out", tmp_path / "out", "--set", override)
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


def test_weights_that_do_not_fit(recipe: Path, tmp_path: Path) -> None:
    def run(content: bytes, name: str) -> Result:
        (tmp_path / name).write_bytes(content)
        return invoke("--quiet", "run", recipe, "--out", tmp_path / "out", "--set", f"model.weights={tmp_path / name}")

    other = build("builtin:smallcnn", args={"width": 4}, num_classes=10, in_channels=1)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    good = (tmp_path / "other.pt").read_bytes()
    torch.save(other, tmp_path / "module.pt")
    nan = build("builtin:smallcnn", args={"width": 8}, num_classes=10, in_channels=1)
    with torch.no_grad():
        nan.features[4].weight[0, 0, 0, 0] = float("nan")
    torch.save(nan.state_dict(), tmp_path / "nan.pt")
    for content, name, message in [
        (good, "shape.pt", "features.0.weight"),
        (good[: len(good) // 2], "short.pt", "short.pt"),
        ((tmp_path / "module.pt").read_bytes(), "pickle.pt", "pickle"),
        ((tmp_path / "nan.pt").read_bytes(), "nans.pt", "features.4.weight"),
    ]:
        result = run(content, name)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()


def test_a_model_that_cannot_be_traced_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untraceable.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = torch.nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        y = self.fc(x.flatten(1))\n"
        "        return y if float(y.sum()) > 1e30 else -y\n"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "model: python:untraceable:Net\ndata: {source: digits, train_size: 64, test_size: 20}\n"
    )
    monkeypatch.setattr(pipeline, "fit", never)
    result = invoke("--quiet", "run", "recipe.yaml", "--out", "out", "--set", "train.epochs=1")
    assert result.exit_code == 1
    assert "untraceable.py" in result.stderr or "forward" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "golden.npz")

    monkeypatch.setattr(delivery, "write_golden", full)
    result = invoke(
        "--quiet", "run", recipe, "--out", tmp_path / "out", "--set", "train.epochs=0", "--set", "compress=[]"
    )
    assert result.exit_code == 1
    assert result.stderr == "error: golden.npz: No space left on device\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]
