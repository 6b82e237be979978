"""Families: one training, a checked bundle for each sparsity, one report; resumed, replaced, and wrong input."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from compress_then_export import pipeline
from compress_then_export import sweep as sweep_module
from compress_then_export.cli import main
from compress_then_export.family import Cost, family_document, pareto_front
from compress_then_export.recipe import RecipeError, parse_recipe
from compress_then_export.sweep import member_recipes, parse_sparsities

RECIPE: dict[str, Any] = {
    "model": {"source": "builtin:smallcnn", "args": {"width": 4}},
    "data": {"source": "digits", "train_size": 320, "test_size": 60},
    "train": {"epochs": 2, "batch_size": 32, "lr": 0.05, "seed": 3},
    "check": {"max_drop": 100, "seconds": 0.1},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def invoke(folder: Path, sparsities: str, *arguments: object, **changes: Any) -> Result:
    (folder / "recipe.yaml").write_text(json.dumps({**RECIPE, **changes}))  # JSON is YAML
    command = ["sweep", folder / "recipe.yaml", "--sparsity", sparsities, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in command], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made")
    trainings = []
    real = pipeline.fit

    def counted(*arguments: Any, **named: Any) -> Any:
        trainings.append(named["label"])
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "fit", counted)
        result = invoke(folder, "0.5,0.9", "--out", folder / "out", "--json")
    assert result.exit_code == 0, result.output
    assert trainings == ["train"]
    return folder / "out", json.loads(result.stdout)


def test_every_member_is_a_bundle_that_runtime_check_accepts(made: tuple[Path, dict[str, Any]]) -> None:
    from runtime_check.cli import cli

    out, document = made
    assert [row["folder"] for row in document["members"]] == ["sparsity-0.5", "sparsity-0.9"]
    assert [row["target_sparsity"] for row in document["members"]] == [0.5, 0.9]
    for row in document["members"]:
        checked = CliRunner().invoke(cli, ["verify", str(out / row["folder"]), "--seconds", "0.05", "--json"])
        assert checked.exit_code == 0, checked.output
        report = json.loads((out / row["folder"] / "report.json").read_text())
        assert report["compressed"]["size_bytes"] == row["size_bytes"]
        assert report["compressed"]["accuracy"] == row["accuracy"]
        assert report["recipe"]["compress"][0]["sparsity"] == row["target_sparsity"]
    sizes = [row["size_bytes"] for row in document["members"]]
    assert document["baseline"]["size_bytes"] > sizes[0] > sizes[1]
    assert document["members"][1]["nonzero_parameters"] < 0.4 * document["members"][0]["nonzero_parameters"]


def test_the_report_covers_all_members_and_the_manifest_all_files(made: tuple[Path, dict[str, Any]]) -> None:
    out, document = made
    assert json.loads((out / "report.json").read_text()) == document
    html = (out / "report.html").read_text()
    for text in ("50.0 %", "90.0 %", "Against sparsity", "Pareto fronts", "dense"):
        assert text in html
    assert "src=" not in html
    manifest = json.loads((out / "manifest.json").read_text())
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (out / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    names = [stage["name"] for stage in document["stages"]]
    assert names.count("train") == 1
    assert names.count("sparsity-0.9 export") == 1
    assert "size" in document["members"][1]["fronts"]  # none is smaller
    assert not list(out.parent.glob("*.partial"))


def test_the_trained_network_starts_another_sweep_without_training(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, document = made
    state = load_file(out / "trained.safetensors")
    assert all(bool((value != 0).any()) for key, value in state.items() if key.endswith("weight"))
    monkeypatch.setattr(pipeline, "fit", never)
    changes = {
        "model": {**RECIPE["model"], "weights": str(out / "trained.safetensors")},
        "train": {**RECIPE["train"], "epochs": 0},
        "compress": [{"method": "at_init", "score": "magnitude", "recalibrate": False}],
    }
    result = invoke(tmp_path, "0.7", "--out", tmp_path / "out", "--json", **changes)
    assert result.exit_code == 0, result.stderr
    again = json.loads(result.stdout)
    assert again["baseline"]["accuracy"] == pytest.approx(document["baseline"]["accuracy"])
    assert len(again["members"]) == 1


def never(*_: object, **__: object) -> None:
    raise AssertionError("done again")


def failing(real: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = iter(range(1, 100))

    def maybe(*arguments: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise OSError(28, "No space left on device", "model.onnx")
        return real(*arguments, **named)

    return maybe


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", sweep_module.deliver
    monkeypatch.setattr(sweep_module, "deliver", failing(real, 2))
    stopped = invoke(tmp_path, "0.5,0.9", "--out", out)
    assert stopped.exit_code == 1
    assert "No space left" in stopped.stderr
    assert not out.exists()
    refused = invoke(tmp_path, "0.5,0.9", "--out", out)
    assert refused.exit_code == 2
    assert "add --resume" in refused.stderr

    delivered = []

    def noted(work: Any) -> Any:
        delivered.append(work.recipe.compress[-1].settings["sparsity"])
        return real(work)

    monkeypatch.setattr(sweep_module, "deliver", noted)
    monkeypatch.setattr(pipeline, "_train_epoch", never, raising=False)
    import compress.train

    monkeypatch.setattr(compress.train, "_train_epoch", never)
    (out.parent / "out.partial" / "checkpoints" / "finished" / "sparsity-0.7").mkdir()
    (out.parent / "out.partial" / "checkpoints" / "finished" / "sparsity-0.7" / "done.json").write_text("{}")
    resumed = invoke(tmp_path, "0.5,0.95", "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "sparsity-0.7 is finished but not in --sparsity; it goes when all is done" in resumed.stderr
    assert "sparsity-0.5: done before" in resumed.stderr
    assert delivered == [0.95]
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"sparsity-0.5", "sparsity-0.95"}
    assert "sparsity-0.95" in resumed.stdout


def test_a_family_is_replaced_and_a_missed_gate_is_exit_3(tmp_path: Path) -> None:
    changes = {
        "train": {**RECIPE["train"], "epochs": 0},
        "check": {"max_drop": None, "max_latency_ms": 1e-6, "seconds": 0.1},
    }
    for sparsities in ("0.5", "0.7"):
        result = invoke(tmp_path, sparsities, "--out", tmp_path / "out", **changes)
        assert result.exit_code == 3, result.stderr
        assert "MISSED latency" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"sparsity-0.7"}
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert document["verdict"]["passed"] is False
    assert [text for text in document["verdict"]["warnings"] if "never trained" in text]
    for place in ("mine.txt", "sparsity-0.7/mine.txt"):
        (tmp_path / "out" / place).write_text("keep")
        refused = invoke(tmp_path, "0.5", "--out", tmp_path / "out", **changes)
        assert refused.exit_code == 2
        assert (tmp_path / "out" / place).read_text() == "keep"
        (tmp_path / "out" / place).unlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no number"),
        ("0.5,", "'' is no number"),
        ("0.5;0.9", "'0.5;0.9' is no number; write a list such as 0.5,0.8,0.9"),
        ("0.5,high", "'high' is no number"),
        ("0.1_0", "'0.1_0' is no number"),
        ("1.0", "1 is not a fraction in [0, 1)"),
        ("0.5,90", "90 is not a fraction in [0, 1)"),
        ("-0.1,0.5", "-0.1 is not a fraction in [0, 1)"),
        ("nan", "nan is not a fraction in [0, 1)"),
        ("0.9,0.5", "0.5 after 0.9 is out of order; write them ascending"),
        ("0.5,0.5", "0.5 after 0.5 is out of order"),
    ],
)
def test_wrong_lists_are_wrong_usage(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^--sparsity: ") as raised:
        parse_sparsities(text)
    assert message in str(raised.value)
    result = invoke(tmp_path, text, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_sparsity_that_keeps_nothing_is_the_options_fault(tmp_path: Path) -> None:
    result = invoke(tmp_path, "0.5,0.9999999", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--sparsity: 0.9999999 keeps none of" in result.stderr
    assert "compress." not in result.stderr


def test_good_lists() -> None:
    assert parse_sparsities("0, 0.5,0.98") == (0.0, 0.5, 0.98)
    assert str(parse_sparsities("-0")[0]) == "0.0"


@pytest.mark.parametrize(
    ("stages", "cut", "methods"),
    [
        ([], 1, ["one_shot"]),
        ([{"method": "frank_wolfe", "train": {"epochs": 1}}], 2, ["frank_wolfe", "one_shot"]),
        ([{"method": "one_shot"}, {"method": "fine_tune"}], 1, ["one_shot", "fine_tune"]),
        ([{"method": "dpf", "structure": "filters", "sparsity": 0.4}, {"method": "dpf"}], 2, ["dpf", "dpf"]),
    ],
)
def test_the_last_stage_with_a_sparsity_cuts(stages: list[dict[str, Any]], cut: int, methods: list[str]) -> None:
    found, recipes = member_recipes(parse_recipe({**RECIPE, "compress": stages}), (0.5, 0.8))
    assert found == cut
    for recipe, sparsity in zip(recipes, (0.5, 0.8), strict=True):
        assert [stage.method for stage in recipe.compress] == methods
        assert recipe.compress[cut - 1].settings["sparsity"] == sparsity
        assert [stage.settings.get("sparsity") for stage in recipe.compress[: cut - 1]] == [
            stage.get("sparsity") for stage in stages[: cut - 1]
        ]


def test_a_sparsity_that_one_member_cannot_reach_stops_the_sweep_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "fit", never)
    stage = {"method": "one_shot", "structure": "2:4", "sparsity": 0.5}
    result = invoke(tmp_path, "0.5,0.8", "--out", tmp_path / "out", compress=[stage])
    assert result.exit_code == 2
    assert "--sparsity: 0.8 cannot be reached" in result.stderr
    stage = {"method": "one_shot", "structure": "filters", "minimum_units": 2}
    result = invoke(tmp_path, "0.1,0.99", "--out", tmp_path / "out", compress=[stage])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: --sparsity: 0.99 keeps none of")
    assert not (tmp_path / "out.partial").exists()


def test_the_document_tells_what_members_share_once() -> None:
    def member(accuracy: float, size: int, latency: float, train: float, *warnings: str) -> dict[str, Any]:
        counts = dict.fromkeys(("parameters", "nonzero_parameters", "macs", "nonzero_macs", "sparsity"), 1)
        side = {"accuracy": accuracy, "size_bytes": size, "latency_ms": {"median": latency}, **counts}
        return {
            "baseline": {**side, "accuracy": 0.9, "size_bytes": 100, "latency_ms": {"median": 1.0}},
            "compressed": side,
            "speedup": {"median": 1 / latency, "ci95": [0.9 / latency, 1.1 / latency]},
            "stages": [{"name": "train", "seconds": 5.0 / train}, {"name": "1-cut", "seconds": train}],
            "training": [], "weights": [], "environment": {}, "recipe": {"compress": [{"sparsity": 0.5, "seed": 0}]},
            "verdict": {"passed": accuracy > 0.8, "warnings": list(warnings), "gates": [
                {"name": "parity", "passed": True}, {"name": "accuracy", "passed": accuracy > 0.8},
            ]},
        }  # fmt: skip

    document = family_document(
        {"a": member(0.89, 60, 1.2, 1.0, "random", "busy"), "b": member(0.5, 70, 0.5, 2.0, "random")}, (0.5, 0.9), 1
    )
    assert document["recipe"] == {"compress": [{"seed": 0}]}
    assert document["sparsities"] == [0.5, 0.9]
    assert document["stages"] == [
        {"name": "train", "seconds": 5.0},
        {"name": "a 1-cut", "seconds": 1.0},
        {"name": "b 1-cut", "seconds": 2.0},
    ]
    assert document["verdict"] == {"passed": False, "warnings": ["random", "a: busy"]}
    assert [row["fronts"] for row in (document["baseline"], *document["members"])] == [
        ["size", "latency"], ["size"], ["latency"],
    ]  # fmt: skip
    assert [row["missed"] for row in document["members"]] == [[], ["accuracy"]]
    assert [row["drop_points"] for row in document["members"]] == pytest.approx([1.0, 40.0])


def test_pareto_front_against_the_definition() -> None:
    points = [(1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (3.0, 0.7), (4.0, 0.9), (1.0, 0.5)]
    assert pareto_front([(Cost(cost, cost, cost), value) for cost, value in points]) == {0, 1, 4, 5}
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = [tuple(row) for row in torch.randint(0, 6, (9, 2), generator=generator).tolist()]
        front = pareto_front([(Cost(cost, cost, cost), value) for cost, value in drawn])
        for i, (cost, value) in enumerate(drawn):
            dominated = False
            for c, v in drawn:
                better = c < cost or v > value
                dominated |= c <= cost and v >= value and better
            assert (i in front) == (not dominated)


def test_within_the_noise_two_are_equally_quick() -> None:
    dense, noise, quick = Cost(1.0, 1.0, 1.0), Cost(0.99, 0.97, 1.01), Cost(0.9, 0.85, 0.95)
    assert pareto_front([(dense, 0.9), (noise, 0.9)]) == {0, 1}
    assert pareto_front([(dense, 0.9), (noise, 0.91)]) == {1}
    assert pareto_front([(dense, 0.9), (quick, 0.9)]) == {1}
    assert pareto_front([(dense, 0.9), (quick, 0.8)]) == {0, 1}
