"""Recipes: defaults written out, overrides, and one clear line for everything that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from compress_then_export.recipe import RecipeError, parse_recipe, read_recipe
from exporters.encodings import AUTO, ENCODINGS

BASE: dict[str, Any] = {
    "model": {"source": "builtin:lenet300"},
    "data": {"source": "digits"},
    "train": {"epochs": 4, "lr": 0.2},
    "compress": [{"method": "dpf", "sparsity": 0.9, "period": 8, "train": {"epochs": 3}}, {"method": "fine_tune"}],
}


def test_every_encoding_is_accepted() -> None:
    for encoding in (AUTO, *ENCODINGS):
        assert parse_recipe({**BASE, "export": {"encoding": encoding}}).export.encoding == encoding


def test_resolved_recipe_is_json_with_every_default() -> None:
    document = json.loads(json.dumps(parse_recipe(BASE).resolved()))
    assert document["train"]["momentum"] == 0.9
    assert document["export"] == {
        "encoding": "auto",
        "values": "float32",
        "quantize": "none",
        "dynamic_batch": True,
    }
    stage = document["compress"][0]
    assert (stage["sparsity"], stage["period"], stage["distribution"]) == (0.9, 8, "global")
    assert (stage["train"]["epochs"], stage["train"]["lr"]) == (3, 0.2)
    assert document["compress"][1]["train"]["epochs"] == 0


def test_a_resolved_recipe_is_a_recipe() -> None:
    once = parse_recipe(BASE).resolved()
    assert parse_recipe(once).resolved() == once
    stage = {"method": "frank_wolfe", "train": {"epochs": 1}}
    decided = parse_recipe({**BASE, "compress": [stage]}).resolved()  # without the keys that the method refuses
    assert "lr" not in decided["compress"][0]["train"]
    assert parse_recipe(decided).resolved() == decided


@pytest.mark.parametrize(
    ("text", "value"), [("09e-1", 0.9), ("9e-1", 0.9), ("1e-4", 1e-4), (".5", 0.5), ("+.5E+0", 0.5), ("0.25", 0.25)]
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: builtin:lenet300\ndata: digits\ncompress: [{{method: dpf, sparsity: {text}}}]\n")
    assert read_recipe(file).compress[0].settings == {"sparsity": value}
    assert read_recipe(file, [f"compress.0.sparsity={text}"]).compress[0].settings == {"sparsity": value}


def test_two_of_four_needs_no_quotes(tmp_path: Path) -> None:
    """YAML 1.1 reads 2:4 as 124, minutes and seconds."""
    file = tmp_path / "recipe.yaml"
    stages = "compress:\n- method: one_shot\n  sparsity: 0.5\n  structure: 2:4\n"
    file.write_text("model: builtin:lenet300\ndata: digits\n" + stages)
    assert read_recipe(file).compress[0].settings["structure"] == "2:4"
    assert read_recipe(file, ["compress.0.structure=1:2"]).compress[0].settings["structure"] == "1:2"


def test_overrides_reach_into_the_short_form_of_model_and_data(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: builtin:lenet300\ndata: digits\n")
    recipe = read_recipe(file, ["model.source=builtin:lenet5_caffe", "data.train_size=100"])
    assert recipe.model.source == "builtin:lenet5_caffe"
    assert recipe.data == {"source": "digits", "train_size": 100}


def test_step_counts_that_were_planned_are_written_out() -> None:
    recipe = parse_recipe(BASE)
    pruners = [stage.pruner().planned(100, []) for stage in recipe.compress]
    assert recipe.resolved()["compress"][0]["ramp_steps"] is None
    assert recipe.resolved(pruners)["compress"][0]["ramp_steps"] == 75


def test_short_form_of_sources() -> None:
    recipe = parse_recipe({"model": "builtin:lenet300", "data": "digits"})
    assert recipe.model.source == "builtin:lenet300"
    assert recipe.data == {"source": "digits"}


def test_recalibration_follows_the_stage() -> None:
    stage = parse_recipe({**BASE, "compress": [{"method": "dpf", "structure": "filters"}]}).compress[0]
    assert stage.recalibrates(5)
    stage = parse_recipe(BASE).compress[0]
    assert not stage.recalibrates(5)
    assert stage.recalibrates(0)
    stage = parse_recipe({**BASE, "compress": [{"method": "dpf", "recalibrate": True}]}).compress[0]
    assert stage.recalibrates(5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "trian: unknown key; did you mean 'train'"),
        ({"train": {"epoch": 3}}, "train.epoch: unknown key; did you mean 'epochs'"),
        ({"train": {"epochs": "many"}}, "train.epochs: "),
        (
            {"train": {"epochs": 2, "warmup_epochs": 2}},
            "train.warmup_epochs: 2.0 is not 0 or more and fewer",
        ),
        ({"train": 3}, "train: 3 is not a mapping of keys"),
        ({"compress": [5]}, "compress.0: 5 is not a mapping of keys"),
        ({"compress": [{"method": "dpf", "train": 4}]}, "compress.0.train: 4 is not a mapping of keys"),
        ({"compress": [{"method": "dpf", "round_to": 0}]}, "compress.0.round_to: "),
        ({"data": {"train_size": 4}}, "data.source: missing"),
        ({"train": {"lr": -1}}, "train.lr: -1.0 is not a positive learning rate"),
        ({"train": {"schedule": "linear"}}, "train.schedule: 'linear' is not one of step, cosine, constant"),
        ({"compress": [{"method": "dfp"}]}, "compress.0.method: there is no 'dfp'; did you mean 'dpf'"),
        ({"compress": [{"method": "dpf", "sparsty": 1}]}, "compress.0.sparsty: dpf has no such setting; did you mean"),
        ({"compress": [{"method": "dpf", "sparsity": 1.0}]}, "compress.0.sparsity: 1.0 is not a fraction"),
        ({"compress": [{"sparsity": 0.5}]}, "compress.0.method: missing"),
        ({"compress": [{"method": "dpf", "train": {"epoch": 1}}]}, "compress.0.train.epoch: unknown key; did you mean"),
        ({"compress": [{"method": "dpf", "train": {"lr": 0}}]}, "compress.0.train.lr: 0.0 is not a positive"),
        ({"compress": {"method": "dpf"}}, "compress: input should be a list"),
        ({"export": {"encoding": "gapp"}}, "export.encoding: "),
        ({"export": {"values": "float8"}}, "export.values: "),
        ({"check": {"max_dorp": 1}}, "check.max_dorp: unknown key; did you mean 'max_drop'"),
        ({"model": {"sorce": "x"}}, "model."),
    ],
)
def test_wrong_recipes_name_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**BASE, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_model_and_data_are_needed() -> None:
    with pytest.raises(RecipeError, match="data: missing"):
        parse_recipe({"model": "builtin:lenet300"})


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return file


YAML = "model: builtin:lenet300\ndata: digits\ncompress:\n  - {method: dpf}\n"


def test_overrides(tmp_path: Path) -> None:
    file = write(tmp_path, YAML)
    recipe = read_recipe(file, ["compress.0.sparsity=0.95", "train.epochs=2", "check.threads=[1, 2]"])
    assert recipe.compress[0].settings == {"sparsity": 0.95}
    assert recipe.train.epochs == 2
    assert recipe.check.threads == (1, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sparsity", "--set: 'sparsity' is not KEY=VALUE"),
        ("compress.1.sparsity=0.5", "--set compress.1.sparsity: '1' is not an item"),
        ("compress.x=0.5", "--set compress.x: 'x' is not an item"),
        ("train.epochs=[", "--set train.epochs: '[' is not a YAML value"),
        ("data.source.deep=1", "--set data.source.deep: "),
        ("tain.epochs=1", "tain: unknown key; did you mean 'train'"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(tmp_path, YAML), [override])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "model: [", "a: !!python/object/apply:os.system ['true']"])
def test_files_that_are_no_recipes(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match="recipe: "):
        read_recipe(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(tmp_path / "no.yaml")


def test_weights_are_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    file = write(tmp_path, "model: {source: builtin:lenet300, weights: w.safetensors}\ndata: digits\n")
    assert read_recipe(file).model.weights == tmp_path / "w.safetensors"


def test_the_demo_recipe_is_valid() -> None:
    from importlib.resources import files

    demo = Path(str(files("compress_then_export") / "demo.yaml"))
    assert [stage.method for stage in read_recipe(demo).compress] == ["dpf", "dpf"]
