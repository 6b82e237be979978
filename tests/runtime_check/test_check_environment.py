from __future__ import annotations

import json
import os
import platform

from runtime_check import environment
from runtime_check.environment import available_cores, business, describe


def test_facts_are_plain_json_and_tell_no_names():
    facts = describe()
    text = json.dumps(facts, allow_nan=False)
    assert {"cpu", "cores", "memory_bytes", "os", "python", "numpy", "onnxruntime", "providers"} <= set(facts)
    assert facts["cores"] == available_cores() >= 1
    assert "CPUExecutionProvider" in facts["providers"]
    values = [str(value) for value in facts.values()]
    assert platform.node() not in values
    assert os.environ.get("USER", "nobody in particular") not in values
    assert "\n" not in text


def test_an_unreadable_machine_still_has_a_description(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_text", lambda _: "")
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (_ for _ in ()).throw(OSError))
    facts = describe()
    assert facts["load_average"] is None
    assert facts["governor"] is None
    assert facts["vector_extensions"] == []


def test_cpuinfo_and_quota_are_parsed(monkeypatch):
    files = {
        "/proc/cpuinfo": "model name : Test CPU\nflags : fpu avx2 fma\n\nmodel name : Other\nflags : avx512f\n",
        "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    }
    monkeypatch.setattr(environment, "_text", lambda path: files.get(str(path), ""))
    facts = describe()
    assert facts["cpu"] == "Test CPU"
    assert facts["vector_extensions"] == ["avx2", "fma"]
    assert facts["cpu_quota"] == 1.5
    files["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert describe()["cpu_quota"] is None


def test_a_busy_machine_is_warned_of():
    assert business({"load_average": [0.9, 5, 5], "cores": 2}) == ()
    assert business({"load_average": None, "cores": 2}) == ()
    assert "load 1.2 on 2 cores" in business({"load_average": [1.2, 0, 0], "cores": 2})[0]
