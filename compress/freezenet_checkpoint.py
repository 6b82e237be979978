"""A FreezeNet on disk: the seed, the trained values with their positions, and all other parameters and buffers.

What the seed gives back is not stored (002, section 3.3.3.1), and yet the whole network comes back bit for bit. The
file is a safetensors file, so nothing in it is executed. For a frozen weight NAME it holds ``NAME:gaps``, the positions
that differ from the seed's values (:mod:`compress.positions`), and ``NAME:values`` there; every other tensor is under
its own name. The metadata hold one entry, ``freezenet``, as JSON: the version of the format, the records of
:class:`compress.frozen.FrozenValues` by weight name, and a SHA-256 of these and all tensors, which tells damage (but
no forgery).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from compress.checkpoint import written_whole
from compress.frozen import FrozenValues
from compress.positions import decode, encode
from compress.subspace import fold

VERSION = 1
_ENTRY = "freezenet"

ModelT = TypeVar("ModelT", bound=nn.Module)


def save_freezenet(model: nn.Module, frozen: Mapping[str, FrozenValues], path: str | Path) -> None:
    """Write ``model``, attached or folded, whole or not at all.

    Args:
        model: the network; it is left as it is.
        frozen: where its frozen weights come from, ``pruner.run.frozen``; with filter bases those that are
            :func:`fitting`, and the kernels are stored whole.
        path: the file to write; its folder is made when missing.

    Raises:
        ValueError: nothing is frozen, a record does not fit the model (which was shrunk since, perhaps), or it is
            of coefficients of a filter basis; or the state of a module is no tensor.
        OSError: the file cannot be written; one that was there is untouched.
    """
    path = Path(path)
    if not frozen:
        raise ValueError("frozen: there are no frozen weights, and so no seed to store; save the state_dict instead")
    state = {name: tensor.cpu() for name, tensor in _checked(fold(copy.deepcopy(model)).state_dict()).items()}
    tensors = dict[str, Tensor]()
    for name, source in frozen.items():
        _refuse_coefficients(name, source, state)
        _check_fit(name, source, state)
        weight = state.pop(name)
        positions = torch.nonzero(_bits(weight) != _bits(source.tensor().to(weight.dtype))).flatten()
        tensors[f"{name}:gaps"] = torch.from_numpy(encode(positions.numpy()))
        tensors[f"{name}:values"] = weight.flatten()[positions]
    for name, tensor in state.items():
        tensors[name] = tensor.contiguous().clone()  # tied tensors share memory, which the format refuses
    records = {name: source.to_json() for name, source in frozen.items()}
    document = {"version": VERSION, "sha256": _digest(frozen, tensors), "frozen": records}
    with written_whole(path) as file:
        file.write(save(tensors, metadata={_ENTRY: json.dumps(document)}))


def fitting(model: nn.Module, frozen: Mapping[str, FrozenValues]) -> dict[str, FrozenValues]:
    """Those of ``frozen`` that are whole weights of ``model``, which is folded: what a file can hold as a seed.

    Coefficients of a filter basis are none, and neither are weights that were shrunk since.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    return {name: source for name, source in frozen.items() if shapes.get(name) == source.shape}


def load_freezenet(model: ModelT, path: str | Path) -> ModelT:
    """Fill ``model``, plain and of the architecture that was saved, and return it. Weights it had are replaced.

    Raises:
        ValueError: the file is missing, damaged, of an unknown version or generator, or of another network; the
            model is untouched then.
    """
    path = Path(path)
    try:
        metadata, tensors = _read(path)
        records, digest = _records(metadata)
        state = _state(_checked(model.state_dict()), records, tensors)
        if digest != _digest(records, tensors):
            raise ValueError("its content is not what was saved, the file is damaged; copy it anew")
        model.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"no readable FreezeNet checkpoint, missing or truncated ({error}); copy it anew") from error


def _state(
    own: dict[str, Tensor], records: Mapping[str, FrozenValues], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``own``, the state of the model, with every tensor replaced by that of the file."""
    for name, source in records.items():
        _check_fit(name, source, own)
    expected = set(own) - set(records) | {f"{name}:{part}" for name in records for part in ("gaps", "values")}
    for wrong, what in ((expected - tensors.keys(), "is missing"), (tensors.keys() - expected, "is not of this model")):
        if wrong:
            raise ValueError(f"{sorted(wrong)[0]!r} {what}; build the model with the arguments that it was saved with")
    for name in own:
        tensor = _restored(name, records[name], tensors) if name in records else tensors[name]
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise ValueError(
                f"{name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}, the model has {own[name].dtype} of shape "
                f"{tuple(own[name].shape)}; build the model with the arguments that it was saved with"
            )
        own[name] = tensor
    return own


def _records(metadata: Mapping[str, str]) -> tuple[dict[str, FrozenValues], str]:
    """What is frozen, and the checksum."""
    if _ENTRY not in metadata:
        raise ValueError("not a FreezeNet checkpoint; save_freezenet writes them")
    try:
        document = json.loads(metadata[_ENTRY])
        version = document["version"]
        if version != VERSION:
            raise ValueError(f"version {version!r} is unknown, this release reads {VERSION}; use the one that wrote it")
        frozen = {name: FrozenValues.from_json(record) for name, record in document["frozen"].items()}
        return frozen, document["sha256"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its frozen weights cannot be made, copy it anew or update: {error}") from error


def _check_fit(name: str, source: FrozenValues, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless ``state`` has that weight at that size: no file says how much is generated."""
    if name not in state or tuple(state[name].shape) != source.shape:
        found = "none" if name not in state else f"one of shape {tuple(state[name].shape)}"
        raise ValueError(
            f"frozen: {name!r} is a weight of shape {source.shape}, the model has {found}; "
            "it has to be as it was when its weights were frozen, neither shrunk nor built otherwise"
        )


def _checked(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """``state``, of which every entry is a tensor: the extra state of a module may be anything."""
    for name, entry in state.items():
        if not isinstance(entry, Tensor):
            raise ValueError(
                f"model: {name!r} of its state_dict is a {type(entry).__name__}, and the file holds tensors alone; "
                "let get_extra_state return one, or save the state_dict instead"
            )
    return dict(state)


def _refuse_coefficients(name: str, source: FrozenValues, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError where [out, in, n] was frozen of kernels [out, in, K, K]."""
    if name in state and len(source.shape) == 3 and state[name].dim() == 4:
        raise ValueError(
            f"frozen: {name!r} was frozen as coefficients {source.shape} of a filter basis, which are not saved this "
            "way; pass fitting(model, frozen) of the folded model, and its kernels are stored whole"
        )


def _restored(name: str, source: FrozenValues, tensors: Mapping[str, Tensor]) -> Tensor:
    """One frozen weight, whole."""
    values = tensors[f"{name}:values"]
    codes = tensors[f"{name}:gaps"]
    if codes.dtype not in (torch.uint8, torch.uint16):
        raise ValueError(f"{name!r} has positions of type {codes.dtype}, not uint8 or uint16; the file is damaged")
    positions = decode(codes.flatten().numpy())
    if len(positions) != values.numel():
        raise ValueError(f"{name!r} has {len(positions)} positions for {values.numel()} values; the file is damaged")
    if len(positions) and positions[-1] >= source.size:
        raise ValueError(
            f"{name!r} has position {positions[-1]}, out of range for {source.size} weights; the file is damaged"
        )
    weight = source.tensor().to(values.dtype).flatten()
    weight[torch.from_numpy(positions)] = values.flatten()
    return weight.view(source.shape)


def _digest(frozen: Mapping[str, FrozenValues], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the records and every tensor with its name, type and shape, in the order of names."""
    digest = hashlib.sha256(json.dumps({name: frozen[name].to_json() for name in sorted(frozen)}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _bits(tensor: Tensor) -> Tensor:
    """The bits of each entry: -0.0 is not 0.0 here, and NaN is itself."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()]).flatten()
