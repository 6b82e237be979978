"""A shrunk model on disk: `model.safetensors` and `plan.json` in one folder. Nothing is pickled."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from compress.shrink.apply import apply_plan
from compress.shrink.plan import SCHEMA, PlanError, ShrinkPlan, parse_json

WEIGHTS_NAME = "model.safetensors"
PLAN_NAME = "plan.json"
_LARGEST_PLAN_BYTES = 256 * 2**20
_Model = TypeVar("_Model", bound=nn.Module)


def save_shrunk(model: nn.Module, plan: ShrinkPlan | Sequence[ShrinkPlan], folder: str | Path) -> None:
    """Write the shrunk model's parameters and buffers, and its plan, into `folder` (made when missing).

    Each file appears complete or not at all.

    Args:
        model: the model after the cut.
        plan: what `shrink` returned; a sequence, in order, when the model was shrunk several times.
        folder: where to.

    Raises:
        OSError: the folder cannot be written.
    """
    plans = [plan] if isinstance(plan, ShrinkPlan) else list(plan)
    document = {"schema": SCHEMA, "plans": [one.to_document() for one in plans]}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = [folder / (name + ".partial") for name in (WEIGHTS_NAME, PLAN_NAME)]
    try:
        try:
            save_model(model, str(partial[0]))
        except SafetensorError as error:
            raise OSError(f"{folder}: the weights cannot be written: {error}") from error
        partial[1].write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        shutil.copymode(partial[1], partial[0])  # safetensors' file is for its owner only; a model is an ordinary file
        partial[0].replace(folder / WEIGHTS_NAME)
        partial[1].replace(folder / PLAN_NAME)
    finally:
        for path in partial:
            path.unlink(missing_ok=True)


def load_shrunk(fresh_model: _Model, folder: str | Path) -> _Model:
    """Cut `fresh_model`, built at its original size, as the plan in `folder` says, and fill in the weights.

    Works in place and returns the model. Nothing is changed when the plan or the weights file is unreadable.

    Raises:
        ValueError: the plan or the weights are missing, damaged, or of another model.
    """
    plan_path, weights_path = Path(folder) / PLAN_NAME, Path(folder) / WEIGHTS_NAME
    try:
        if plan_path.stat().st_size > _LARGEST_PLAN_BYTES:
            raise PlanError(f"{plan_path}: too large for a shrink plan")
        plans = _read_plans(plan_path.read_text(encoding="utf-8"))
        weights = load_file(weights_path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder}: no readable shrunk model ({WEIGHTS_NAME}, {PLAN_NAME}): {error}") from error
    except SafetensorError as error:
        raise ValueError(f"{weights_path}: not a complete safetensors file: {error}") from error
    for plan in plans:
        apply_plan(fresh_model, plan)
    try:
        fresh_model.load_state_dict(_with_aliases(weights, fresh_model), strict=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{weights_path}: the weights do not fit the plan and the model: {error}") from error
    return fresh_model


def _read_plans(text: str) -> list[ShrinkPlan]:
    document = parse_json(text)
    if not isinstance(document, dict) or set(document) != {"schema", "plans"} or document["schema"] != SCHEMA:
        raise PlanError(f"{PLAN_NAME} must hold schema {SCHEMA} and plans")
    if not isinstance(document["plans"], list):
        raise PlanError(f"{PLAN_NAME}: plans must be a list")
    return [ShrinkPlan.from_document(one) for one in document["plans"]]


def _with_aliases(weights: dict[str, Tensor], model: nn.Module) -> OrderedDict[str, Tensor]:
    """A state dict for `model`: tied parameters are stored once, and some modules ask for its version numbers."""
    wanted = model.state_dict()
    stored = {wanted[name].data_ptr(): tensor for name, tensor in weights.items() if name in wanted}
    state = OrderedDict(weights)
    for name, tensor in wanted.items():
        if name not in state and tensor.numel() and tensor.data_ptr() in stored:
            state[name] = stored[tensor.data_ptr()]
    state._metadata = wanted._metadata  # type: ignore[attr-defined]
    return state
