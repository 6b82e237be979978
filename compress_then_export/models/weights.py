"""Reading weights into a model without trusting the file."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress_then_export.models.errors import WeightsError
from compress_then_export.models.source import one_line

_LOG = logging.getLogger(__name__)
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_CONVERT = "where you trust it, load it and write safetensors.torch.save_file(model.state_dict(), FILE)"


def load_weights(model: nn.Module, path: str | Path, *, allow_pickle: bool = False) -> None:
    """Fill a model with the weights of a file; the model is untouched when anything is wrong.

    Reads ``.safetensors`` (preferred) and ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` holding a plain state dict,
    possibly under the key "state_dict", "model_state_dict" or "model"; prefixes that DataParallel and
    torch.compile put before every name are stripped. Code inside a pickle is refused, never executed.

    Args:
        model: the network to fill, in place.
        path: the weights file.
        allow_pickle: also accept pickles that need code to load. Warning: such a file can do anything with
            this machine; only for files that you made yourself.

    Raises:
        WeightsError: the file is missing, truncated, a refused pickle, has no state dict, lacks or adds
            tensors, has tensors of another shape, or NaN or infinite values.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist" if not path.exists() else f"weights {path} is no file")
    if path.stat().st_size == 0:
        raise WeightsError(f"weights file {path} is empty; fetch or write it again")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in _PICKLES:
        state = _state_dict(_read_pickle(path, allow_pickle=allow_pickle), path)
    else:
        raise WeightsError(f"weights file {path} must end in .safetensors (preferred), .pt or .pth")
    state = _strip_prefixes(state)
    _check_fit(model, state, path)
    model.load_state_dict(state, strict=False)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {path} is truncated or no safetensors file: {one_line(error)}") from error


def _read_pickle(path: Path, *, allow_pickle: bool) -> Any:
    if allow_pickle:
        _LOG.warning("loading %s with allow_pickle: code inside this file runs with your rights", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickle protocols; the verdict below says what to do
            return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error) or "Ran out of input" in str(error):
            raise WeightsError(f"weights file {path} is truncated; fetch or write it again") from error
        raise WeightsError(f"weights file {path} is no plain state dict and was not loaded; {_CONVERT}") from error
    except Exception as error:
        # Damaged files end in RuntimeError, EOFError, KeyError, UnicodeDecodeError and others.
        raise WeightsError(f"weights file {path} is truncated or no PyTorch file; fetch or write it again") from error


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping | nn.Module):
            inner = loaded[wrapper]
            loaded = inner.state_dict() if isinstance(inner, nn.Module) else inner
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"weights file {path} holds a {type(loaded).__name__}, not a state dict; {_CONVERT}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"weights file {path} is no state dict: {name!r} is a {type(value).__name__}, not a tensor"
            )
    return dict(loaded)


def _strip_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    while state:
        prefix = next((each for each in _PREFIXES if all(name.startswith(each) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_fit(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    # BatchNorm's step counter came late to PyTorch and influences nothing at inference; old files lack it.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        parts = [
            f"{len(names)} {what} ({_few(names)})"
            for names, what in ((missing, "missing"), (unexpected, "unexpected"))
            if names
        ]
        raise WeightsError(f"weights file {path} does not fit the model: {' and '.join(parts)}")
    wrong = [
        f"{name} is {_shape(value)} in the file but {_shape(own[name])} in the model"
        for name, value in state.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"weights file {path} does not fit the model: {'; '.join(wrong[:3])}{more}")
    for name, value in state.items():
        if value.is_complex() and not own[name].is_complex():
            raise WeightsError(f"weights file {path}: tensor {name} is complex but the model's is {own[name].dtype}")
        if not value.is_floating_point():
            if own[name].is_floating_point():
                raise WeightsError(
                    f"weights file {path}: tensor {name} is {value.dtype} but the model's is {own[name].dtype}"
                )
            continue
        # torch.isfinite does not know the 8-bit formats.
        count = int((~torch.isfinite(value if value.element_size() > 1 else value.float())).sum())
        if not count and value.element_size() > own[name].element_size():
            count = int((~torch.isfinite(value.to(own[name].dtype))).sum())
        if count:
            raise WeightsError(f"weights file {path}: tensor {name} has {count} NaN or infinite values")
        if name.endswith("running_var") and bool((value.float() < 0).any()):
            raise WeightsError(f"weights file {path}: tensor {name} is a variance but holds negative values")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
