"""The machine a figure was measured on, without host or user names."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_VECTOR_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "asimd",
    "sve",
)


def available_cores() -> int:
    """Cores this process may use: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def describe(*, kernels: bool = True) -> dict[str, Any]:
    """What a reader needs to judge a latency; facts that cannot be read are None or left out.

    Args:
        kernels: whether the measurement may use the sparse kernels.
    """
    import numpy
    import onnxruntime

    from runtime_check.kernels import status

    facts = _cpuinfo()
    return {
        "cpu": facts.get("model name") or platform.processor() or None,
        "cores": available_cores(),
        "cores_total": os.cpu_count(),
        "cpu_quota": _cpu_quota(),
        "vector_extensions": _vector_extensions(facts),
        "memory_bytes": _memory_bytes(),
        "architecture": platform.machine(),
        "os": f"{platform.system()} {platform.release()}".strip(),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_average": load_average(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "providers": list(onnxruntime.get_available_providers()),
        "sparse_kernels": str(status()) if kernels else "turned off",
    }


def load_average() -> list[float] | None:
    """Mean number of runnable processes over 1, 5 and 15 minutes, where the system tells."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def business(environment: dict[str, Any]) -> tuple[str, ...]:
    """A warning when other work kept at least half of the cores busy during the last minute."""
    load, cores = environment.get("load_average"), environment.get("cores")
    if not load or not cores or load[0] < 0.5 * cores:
        return ()
    return (f"the machine was busy before the measurement (load {load[0]:.1f} on {cores} cores)",)


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    facts: dict[str, str] = {}
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break
        facts[key.strip()] = value.strip()
    return facts


def _vector_extensions(facts: dict[str, str]) -> list[str]:
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return [flag for flag in _VECTOR_FLAGS if flag in flags]


def _cpu_quota() -> float | None:
    """Cores a container may use on average (cgroup v2), None when unlimited or unknown."""
    parts = (_first_line(Path("/sys/fs/cgroup/cpu.max")) or "").split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return round(int(parts[0]) / int(parts[1]), 2)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _first_line(path: Path) -> str | None:
    lines = _text(path).splitlines()
    return lines[0].strip() if lines else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
