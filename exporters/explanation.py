"""One sentence out of torch's long error messages: which module, which line, what is wrong, what to do."""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, fx, nn

# The model's own code is whatever lies neither in torch nor in the standard library.
_LIBRARY_ROOTS = tuple(str(Path(module.__file__).parent) for module in (torch, contextlib) if module.__file__)
_DATA_DEPENDENT = ("data-dependent", "data dependent", "Could not guard", "unbacked")


def explain_forward(model: nn.Module, inputs: Sequence[Tensor], error: BaseException) -> str:
    """Return why the model cannot process its example inputs."""
    shapes = ", ".join(f"{str(item.dtype).removeprefix('torch.')} {list(item.shape)}" for item in inputs)
    return f"example_inputs: the model fails on ({shapes}){_place(model, error)}: {_first_line(error)}"


def explain_trace(model: nn.Module, error: BaseException) -> str:
    """Return why torch.export gave up."""
    place = _place(model, error)
    text = str(error)
    if "batch" in text and ("specialized" in text or "Constraints violated" in text):
        return (
            f"model: its code fixes the batch size{place}; "
            "make it independent of the batch size or export with dynamic_batch=False"
        )
    if any(mark in text for mark in _DATA_DEPENDENT):
        return (
            f"model: torch.export cannot trace it{place}: the path through the code depends on the values of "
            "tensors; use torch.where or torch.cond instead of a Python condition"
        )
    return (
        f"model: torch.export cannot trace it{place}: {_first_line(error)}; write this part with tensor operations only"
    )


def explain_conversion(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """Return which operation of a traced program has no ONNX form, and where it stands in the model."""
    text = "\n".join(str(item) for item in _chain(error))
    named = re.search(r"Error when translating node %(\w+)", text)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    place = _node_place(program, named.group(1) if named else "", operator.group(1) if operator else "")
    what = f"{operator.group(1)} has no ONNX form" if operator else _first_line(_chain(error)[-1])
    return f"model: torch.onnx.export cannot write it{place}: {what}; replace this operation by standard ones"


def _node_place(program: torch.export.ExportedProgram, name: str, operator: str) -> str:
    nodes = list(program.graph.nodes)
    exact = [node for node in nodes if node.name == name]
    # Decompositions rename nodes; then the first node of the same operator has to do.
    stem = operator.rpartition(".")[2].strip("_")
    alike = [node for node in nodes if stem and stem in _operator_name(node)]
    for node in exact + alike:
        modules = list((node.meta.get("nn_module_stack") or {}).values())
        module = str(modules[-1][0]) if modules else ""
        sources = re.findall(r'File "([^"]+)", line (\d+), in \w+', str(node.meta.get("stack_trace") or ""))
        own = [source for source in sources if not _is_library(source[0])]
        where = f" in {_module_words(module)}"
        return f"{where} at {own[-1][0]}:{own[-1][1]}" if own else where
    return ""


def _operator_name(node: fx.Node) -> str:
    name = getattr(node.target, "name", None)
    return str(name()) if callable(name) else ""


def _place(model: nn.Module, error: BaseException) -> str:
    """Return the module and the line of the model's own code that were reached last, or an empty string."""
    names = {id(module): name for name, module in model.named_modules()}
    for item in reversed(_chain(error)):
        module: str | None = None
        source = ""
        for frame, line in _frames(item.__traceback__):
            owner = frame.f_locals.get("self")
            if id(owner) in names:
                module = names[id(owner)]
            if module is not None and not _is_library(frame.f_code.co_filename):
                source = f" at {frame.f_code.co_filename}:{line}"
        if module is not None:
            return f" in {_module_words(module)}{source}"
    return ""


def _module_words(name: str) -> str:
    return f"module {name!r}" if name else "the model's own forward"


def _is_library(path: str) -> bool:
    return path.startswith((*_LIBRARY_ROOTS, "<"))


def _frames(traceback: types.TracebackType | None) -> Iterator[tuple[types.FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _chain(error: BaseException) -> list[BaseException]:
    """Return ``error`` and what caused it, the root cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
