from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from runtime_check.cli import cli, main

QUICK = ("--seconds", "0.02")


def ran(capsys, *args):
    code = main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_verify_prints_tables_and_progress_apart(make_bundle, capsys):
    code, out, _ = ran(capsys, "verify", make_bundle(), *QUICK)
    assert code == 0
    for words in ("accuracy", "file size", "latency, 1 thread", "pass  parity", "good: every gate is met"):
        assert words in out


def test_unknown_figures_are_told_as_unknown(make_bundle, capsys, tmp_path):
    def forget(manifest):
        manifest["figures"]["compressed"] |= {"macs": None, "nonzero_macs": None, "sparsity": None}

    folder = make_bundle(change=forget)
    code, out, _ = ran(capsys, "verify", folder, *QUICK, "--html", tmp_path / "r.html")
    assert code == 0
    assert out.count("unknown") == 3
    assert "nonzero MACs" not in (tmp_path / "r.html").read_text()
    _, out, _ = ran(capsys, "verify", folder, *QUICK, "--json")
    assert json.loads(out)["compressed"]["macs"] is None


def test_verify_json_is_one_document(make_bundle, capsys):
    code, out, _ = ran(capsys, "verify", make_bundle(), *QUICK, "--threads", 1, "--threads", 2, "--json")
    document = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert code == 0
    assert [entry["threads"] for entry in document["latency_by_threads"]] == [1, 2]


@pytest.mark.parametrize("gate", [("--min-speedup", "1000"), ("--max-latency-ms", "1e-8"), ("--max-drop", "-50")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_missed_gate_is_exit_3_with_the_document(gate, form, make_bundle, capsys):
    code, out, _ = ran(capsys, "verify", make_bundle(), *QUICK, *gate, *form)
    assert code == 3
    if form:
        assert json.loads(out)["verdict"]["passed"] is False
    else:
        assert "FAIL" in out


def test_the_report_is_written_whole_even_when_a_gate_is_missed(make_bundle, capsys, tmp_path):
    report = tmp_path / "report.html"
    code, _, _ = ran(capsys, "verify", make_bundle(), *QUICK, "--min-speedup", 1000, "--html", report)
    assert code == 3
    assert report.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.glob("*.part")] == []
    for wrong in (tmp_path / "no" / "r.html", tmp_path / "bundle" / "report.html"):
        code, out, err = ran(capsys, "verify", tmp_path / "bundle", *QUICK, "--html", wrong)
        assert (code, out) == (2, "")
        assert "--html" in err
        assert not wrong.exists()


def test_data_tolerance_and_kernels_are_passed_on(make_bundle, capsys, tmp_path, weight):
    inputs = np.random.default_rng(0).standard_normal((70, len(weight))).astype(np.float32)
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=(inputs @ weight).argmax(1))
    options = ("--data", tmp_path / "d.npz", "--no-kernels", "--parity-tolerance", "0.5", "--json")
    _, out, _ = ran(capsys, "verify", make_bundle(), *QUICK, *options)
    document = json.loads(out)
    assert document["baseline"]["accuracy_samples"] == 70
    assert document["verdict"]["gates"][0]["limit"] == 0.5


def test_bench(write_model, capsys):
    files = [write_model("a.onnx"), write_model("b.onnx")]
    code, out, _ = ran(capsys, "bench", *files, *QUICK)
    assert code == 0
    assert "baseline" in out
    assert "as fast" in out
    code, out, _ = ran(capsys, "bench", *files, *QUICK, "--json", "--threads", 2)
    assert code == 0
    assert [model["latency_ms"]["threads"] for model in json.loads(out)["models"]] == [2, 2]


def test_bench_asks_for_free_sizes(write_model, capsys):
    file = write_model(features="wide")
    code, _, err = ran(capsys, "bench", file, *QUICK)
    assert code == 1
    assert "--shape wide=VALUE" in err
    assert ran(capsys, "bench", file, *QUICK, "--shape", "wide=6")[0] == 0
    assert ran(capsys, "bench", file, *QUICK, "--shape", "wide=x")[0] == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 2),
        (("nonsense",), 2),
        (("verify",), 2),
        (("verify", "/does/not/exist"), 2),
        (("verify", ".", "--max-drop", "x"), 2),
        (("verify", ".", "--seconds", "0"), 2),
        (("verify", ".", "--threads", "0"), 2),
        (("verify", ".", "--data", "absent.npz"), 2),
        (("verify", ".", "--unknown"), 2),
        (("bench",), 2),
        (("bench", "absent.onnx"), 2),
        (("verify", "{empty}"), 1),
        (("verify", "{empty}", "--min-speedup", "-1"), 2),
        (("verify", "{empty}", "--parity-tolerance", "nan"), 2),
        (("bench", "{junk}"), 1),
    ],
)
def test_expected_problems_are_one_line_and_an_exit_code(args, code, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    args = [arg.format(empty=tmp_path / "empty", junk=tmp_path / "junk.onnx") for arg in args]
    found, out, err = ran(capsys, *args)
    assert found == code
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("runtime-check")


def test_a_swapped_file_is_exit_1_and_named(make_bundle, capsys):
    folder = make_bundle()
    (folder / "model.onnx").write_bytes((folder / "dense.onnx").read_bytes()[::-1])
    code, out, err = ran(capsys, "verify", folder)
    assert (code, out) == (1, "")
    assert err.strip().splitlines()[-1].startswith("runtime-check: model.onnx does not match its sha256")


def test_every_command_and_option_has_help():
    for command in (cli, *cli.commands.values()):
        assert command.help
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help


def test_help_imports_neither_numpy_nor_onnxruntime():
    code = (
        "import sys; from runtime_check.cli import main; import runtime_check;"
        "assert main(['verify', '--help']) == 0 and 'verify' in dir(runtime_check);"
        "sys.exit(bool({'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
