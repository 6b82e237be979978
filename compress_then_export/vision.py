"""torchvision, imported in a way that works beside any build of torch.

torchvision's wheels on the package index are compiled against the CUDA build of torch. Beside a CPU build
the compiled operators do not load. torchvision survives that by itself, except that its import registers
shape functions for ``torchvision::nms`` and ``torchvision::qnms`` without asking whether they exist; so the
import ends with ``RuntimeError: operator torchvision::nms does not exist`` although models, datasets and
transforms are pure Python. This module tries the plain import first and touches nothing when it works.
Otherwise it declares the schemas of the two operators (schemas only: calling them still fails, as it should)
and imports again.

Use ``from compress_then_export.vision import torchvision``; afterwards a plain ``import torchvision``
anywhere in the process gives the same module.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# A torch.library.Library withdraws its definitions when it is collected, so it lives as long as the process.
_LIBRARIES: list[torch.library.Library] = []


def _import() -> ModuleType:
    module = importlib.import_module("torchvision")
    importlib.import_module("torchvision.transforms.v2")
    return module


def _lacks_operator(error: RuntimeError) -> bool:
    message = str(error)
    return any(f"torchvision::{name}" in message for name in _SCHEMAS) and "does not exist" in message


def _forget_partial_import() -> None:
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]


def _define_missing_schemas() -> None:
    # The dispatcher answers, not the namespace torch.ops, which caches what it once resolved.
    existing = set(torch._C._dispatch_get_all_op_names())
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if f"torchvision::{name}" not in existing:
            library.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)


def load_torchvision() -> ModuleType:
    """Return torchvision, imported completely (models, datasets, ops, transforms and transforms.v2).

    Safe to call again and when torchvision was imported before: it then returns the module at once.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision's import fails for another reason than the missing operators.
    """
    try:
        return _import()
    except RuntimeError as error:
        if not _lacks_operator(error):
            raise
    _forget_partial_import()
    _define_missing_schemas()
    return _import()


torchvision: ModuleType = load_torchvision()
"""The imported torchvision module."""
