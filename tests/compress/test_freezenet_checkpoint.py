"""The small checkpoint: what it holds, that it restores every bit in a fresh process, and hostile files."""

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_checks import network
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from compress import fold
from compress.budget import keep_count
from compress.freezenet_checkpoint import fitting, load_freezenet, save_freezenet
from compress.methods import FreezeNet
from compress_then_export.models import build


def trained(model: nn.Module, shape: tuple[int, int, int], **settings: Any) -> tuple[nn.Module, FreezeNet]:
    generator = torch.Generator().manual_seed(3)
    data = [(torch.randn(20, *shape, generator=generator), torch.arange(20) % 5) for _ in range(2)]
    pruner = FreezeNet(**settings)
    pruner.attach(model, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for inputs, targets in data:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    pruner.finish()
    return model, pruner


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A checkpoint of the shared network, and the network folded."""
    model, pruner = trained(network(), (3, 8, 8), seed=2**32 - 1)
    path = tmp_path_factory.mktemp("saved") / "freezenet.safetensors"
    save_freezenet(model, pruner.run.frozen, path)
    return path, fold(model)


def fresh() -> nn.Module:
    torch.manual_seed(99)
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_the_whole_network_comes_back(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    assert same(load_freezenet(fresh(), path), model)


def test_attached_and_folded_models_make_the_same_file_and_stay_as_they_are(tmp_path: Path) -> None:
    model, pruner = trained(network(), (3, 8, 8))
    keys = list(model.state_dict())
    save_freezenet(model, pruner.run.frozen, tmp_path / "new" / "attached")
    assert list(model.state_dict()) == keys
    save_freezenet(fold(model), pruner.run.frozen, tmp_path / "folded")
    assert (tmp_path / "new" / "attached").read_bytes() == (tmp_path / "folded").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folded", "new"]


def lenet(sparsity: float, path: Path) -> nn.Module:
    """LeNet-5-Caffe trained a little, saved at ``path`` and folded."""
    model = build("builtin:lenet5_caffe", num_classes=10, in_channels=1)
    model, pruner = trained(model, (1, 28, 28), sparsity=sparsity, seed=17)
    save_freezenet(model, pruner.run.frozen, path)
    return fold(model)


def test_a_fresh_process_restores_every_bit(tmp_path: Path) -> None:
    model = lenet(0.99, tmp_path / "file")
    script = (
        "import hashlib, sys\n"
        "from compress.freezenet_checkpoint import load_freezenet\n"
        "from compress_then_export.models import build\n"
        "model = load_freezenet(build('builtin:lenet5_caffe', num_classes=10, in_channels=1), sys.argv[1])\n"
        "print(hashlib.sha256(b''.join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "file"], capture_output=True, text=True)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()
    assert done.stdout.strip() == digest, done.stderr


@pytest.mark.parametrize(("sparsity", "kilobytes"), [(0.9, 170.7), (0.99, 19.1), (0.995, 10.7), (0.999, 3.9)])
def test_values_take_the_space_of_table_3_2_and_positions_a_byte_or_two_each(
    sparsity: float, kilobytes: float, tmp_path: Path
) -> None:
    """002, Table 3.2, counts values alone; its first row is 0.2 % above 4 · (430,500 (1 − q) + 580) bytes."""
    lenet(sparsity, tmp_path / "file")
    _, tensors = contents(tmp_path / "file")
    values = sum(tensor.nbytes for name, tensor in tensors.items() if not name.endswith(":gaps"))
    assert values <= 4 * (keep_count(430_500, sparsity) + 580)  # less where training left a weight as it was
    assert values / 1024 == pytest.approx(kilobytes, rel=0.02)
    assert (tmp_path / "file").stat().st_size < values + 2 * (values // 4) + 2048


def test_it_holds_the_seed_and_no_frozen_value(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    metadata, tensors = contents(path)
    assert {record["seed"] for record in json.loads(metadata["freezenet"])["frozen"].values()} == {2**32 - 1}
    weights = {name for name, p in model.named_parameters() if p.dim() > 1}
    assert set(tensors) == set(model.state_dict()) - weights | {
        f"{w}:{part}" for w in weights for part in ("gaps", "values")
    }
    trainable = keep_count(sum(model.get_parameter(name).numel() for name in weights), 0.9)
    assert sum(tensors[f"{name}:values"].numel() for name in weights) == trainable


def test_bits_are_kept_that_compare_equal_or_to_nothing(tmp_path: Path) -> None:
    model, pruner = trained(network(), (3, 8, 8), sparsity=1)
    fold(model)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan  # type: ignore[index,union-attr,operator]
        model[0].weight[0, 0, 0, 1] = -0.0  # type: ignore[index,union-attr,operator]
    save_freezenet(model, pruner.run.frozen, tmp_path / "file")
    restored = load_freezenet(network(), tmp_path / "file")[0].weight  # type: ignore[index]
    assert torch.equal(restored.view(torch.int32), model[0].weight.view(torch.int32))  # type: ignore[index,union-attr,arg-type,call-overload,operator]


@pytest.mark.parametrize("basis", [{}, {"basis": "random", "basis_size": 4}])
def test_coefficients_of_filter_bases_are_refused_and_their_kernels_can_be_stored(
    basis: dict[str, Any], tmp_path: Path
) -> None:
    model, pruner = trained(network(), (3, 8, 8), interspace="fine", **basis)
    for each in (model, fold(copy.deepcopy(model))):
        with pytest.raises(ValueError, match=r"frozen: '0.weight' was frozen as coefficients \(8, 3, \d\) of a filter"):
            save_freezenet(each, pruner.run.frozen, tmp_path / "file")
    fold(model)
    stored = fitting(model, pruner.run.frozen)
    assert list(stored) == ["6.weight", "8.weight"]
    save_freezenet(model, stored, tmp_path / "file")
    assert same(load_freezenet(fresh(), tmp_path / "file"), model)


def test_half_precision(tmp_path: Path) -> None:
    model, pruner = trained(network(), (3, 8, 8))
    fold(model).half()
    save_freezenet(model, pruner.run.frozen, tmp_path / "file")
    assert same(load_freezenet(network().half(), tmp_path / "file"), model)
    assert (tmp_path / "file").stat().st_size < 6000


Change = Callable[[dict[str, str], dict[str, Tensor]], None]


def record(**changes: object) -> Change:
    """Change the record of the first weight in the metadata."""

    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        document = json.loads(metadata["freezenet"])
        document["frozen"]["0.weight"] |= changes
        metadata["freezenet"] = json.dumps(document)

    return change


def said(text: str) -> Change:
    return lambda metadata, tensors: metadata.update({"freezenet": text})


def tensor(name: str, value: Tensor | None) -> Change:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


def longer(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["0.weight:values"] = torch.cat([tensors["0.weight:values"], torch.zeros(1)])


def beyond(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    count = tensors["0.weight:values"].numel()
    tensors["0.weight:gaps"] = torch.full((count,), 200, dtype=torch.uint8)


def ghost(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    document = json.loads(metadata["freezenet"])
    document["frozen"]["ghost.weight"] = document["frozen"]["0.weight"]
    metadata["freezenet"] = json.dumps(document)
    tensors |= {"ghost.weight:gaps": torch.zeros(0, dtype=torch.uint8), "ghost.weight:values": torch.zeros(0)}


HOSTILE: dict[str, tuple[Change, str]] = {
    "another format": (lambda metadata, tensors: metadata.clear(), "not a FreezeNet checkpoint"),
    "version": (said('{"version": 7, "frozen": {}}'), "version 7 is unknown, this release reads 1"),
    "no version": (said("{}"), "cannot be made"),
    "no checksum": (said('{"version": 1, "frozen": {}}'), "cannot be made, .*'sha256'"),
    "no JSON": (said("{"), "cannot be made"),
    "a list": (said("[1]"), "cannot be made"),
    "a list of records": (said('{"version": 1, "frozen": [1]}'), "cannot be made"),
    "a record that is none": (said('{"version": 1, "frozen": {"0.weight": 3}}'), "cannot be made"),
    "nested deeply": (said("[" * 100_000), "cannot be made"),
    "seed too large": (record(seed=2**32), "seed: 4294967296"),
    "seed negative": (record(seed=-1), "seed: -1"),
    "seed a text": (record(seed="7"), "seed: '7'"),
    "distribution": (record(distribution="cauchy"), "distribution: 'cauchy'"),
    "generator": (record(generator="philox"), r"record: .*generator"),
    "another seed": (record(seed=7), "not what was saved, the file is damaged"),
    "scale": (record(scale=float("nan")), "scale: nan"),
    "shape": (record(shape=[8, 3, 9]), r"'0.weight' is a weight of shape \(8, 3, 9\), the model has one of shape"),
    "shape huge": (record(shape=[2**15, 2**15]), r"'0.weight' is a weight of shape \(32768, 32768\)"),
    "weight unknown": (ghost, r"'ghost.weight' is a weight of shape .* the model has none"),
    "values missing": (tensor("0.weight:values", None), "'0.weight:values' is missing"),
    "positions missing": (tensor("0.weight:gaps", None), "'0.weight:gaps' is missing"),
    "bias missing": (tensor("3.bias", None), r"'3.bias' is missing"),
    "tensor too many": (tensor("extra", torch.ones(1)), "'extra' is not of this model"),
    "another bias": (tensor("3.bias", torch.ones(12)), "not what was saved, the file is damaged"),
    "bias of another shape": (tensor("3.bias", torch.ones(7)), r"'3.bias' is torch.float32 of shape \(7,\)"),
    "bias of another type": (tensor("3.bias", torch.ones(12).double()), "'3.bias' is torch.float64"),
    "wrong count": (longer, r"'0.weight' has \d+ positions for \d+ values"),
    "out of range": (beyond, r"'0.weight' has position \d+, out of range for 216 weights"),
    "inside a gap": (tensor("0.weight:gaps", torch.full((9,), 255, dtype=torch.uint8)), "end inside a gap"),
    "positions as numbers": (tensor("0.weight:gaps", torch.tensor([3, 2])), "positions of type torch.int64"),
    "positions in bfloat16": (tensor("0.weight:gaps", torch.ones(3).bfloat16()), "positions of type torch.bfloat16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named_and_change_nothing(name: str, saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    metadata, tensors = contents(saved[0])
    change(metadata, tensors)
    path = tmp_path / "hostile.safetensors"
    save_file(tensors, path, metadata=metadata)
    model = fresh()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message) as caught:
        load_freezenet(model, path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert same(model, before)


def test_one_bit_flipped_anywhere_is_found_and_changes_nothing(tmp_path: Path) -> None:
    """Every byte of a small file: lengths, names, records of the seed, and the data."""
    torch.manual_seed(1)
    model, pruner = trained(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6)), (3, 2, 2))
    save_freezenet(model, pruner.run.frozen, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    other = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6))
    before = copy.deepcopy(other)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged: "):
            load_freezenet(other, tmp_path / "damaged")
    assert same(other, before)
    assert same(load_freezenet(other, tmp_path / "file"), fold(model))


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_files(length: int, saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(saved[0].read_bytes()[:length])
    with pytest.raises(ValueError, match="missing or truncated"):
        load_freezenet(network(), path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing or truncated"):
        load_freezenet(network(), tmp_path / "none")


class Talkative(nn.ReLU):
    """A module whose state is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


def test_a_state_that_is_no_tensor_is_named(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    plain = network()
    plain[2] = Talkative()  # type: ignore[operator]
    model, pruner = trained(plain, (3, 8, 8))
    message = r"model: '2._extra_state' of its state_dict is a dict"
    with pytest.raises(ValueError, match=message):
        save_freezenet(model, pruner.run.frozen, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    with pytest.raises(ValueError, match=message):
        load_freezenet(fold(model), saved[0])


def test_what_cannot_be_saved_leaves_the_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    model, pruner = trained(network(), (3, 8, 8))
    with pytest.raises(ValueError, match="frozen: there are no frozen weights"):
        save_freezenet(model, {}, path)
    fold(model)
    model[0] = nn.Conv2d(3, 7, 3)  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=r"'0.weight' is a weight of shape \(8, 3, 3, 3\), the model has one of shape \(7"
    ):
        save_freezenet(model, pruner.run.frozen, path)
    assert path.read_text() == "precious"
