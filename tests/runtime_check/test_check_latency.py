from __future__ import annotations

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest

from runtime_check import latency as latency_module
from runtime_check import timing
from runtime_check.errors import CheckError
from runtime_check.figures import Latency, summarise
from runtime_check.latency import bench, compare
from runtime_check.session import load
from runtime_check.timing import MIN_ROUNDS, Rounds, Runner, take_turns


class FakeMachine:
    """A clock that only runs while a fake session does: measured times are exactly those set."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)

    def runner(self, name, seconds):
        def call(_, feed):
            assert feed == {}
            self.now += seconds() if callable(seconds) else seconds
            self.calls.append(name)
            return []

        return Runner(session=SimpleNamespace(run=call), feed={}, name=name)


def measured(machine, rounds, runners):
    """The calls of the rounds themselves, without warm-up."""
    return machine.calls[-len(rounds.latency_ms) * runners :]


def test_every_round_times_each_once_and_the_next_turns_back(monkeypatch):
    machine = FakeMachine(monkeypatch)
    runners = [machine.runner(name, seconds) for name, seconds in (("a", 0.004), ("b", 0.002), ("c", 0.001))]
    rounds = take_turns(runners, seconds=0.7)
    assert rounds.calls == (1, 1, 1)
    assert len(rounds.latency_ms) == 100
    np.testing.assert_allclose(rounds.latency_ms, np.tile([4.0, 2.0, 1.0], (100, 1)))
    calls = measured(machine, rounds, 3)
    groups = [calls[i : i + 3] for i in range(0, 300, 3)]
    assert all(sorted(group) == ["a", "b", "c"] for group in groups)
    assert all(groups[i + 1] == groups[i][::-1] for i in range(0, 100, 2))
    assert {group[0] for group in groups} == {"a", "b", "c"}


def test_a_drifting_machine_does_not_move_the_ratio(monkeypatch):
    """B is exactly as fast as A, while the machine gets steadily slower."""
    machine = FakeMachine(monkeypatch)
    runners = [machine.runner(name, lambda: 0.001 * (1 + machine.now)) for name in "ab"]
    rounds = take_turns(runners, seconds=2.0)
    ratios = rounds.latency_ms[:, 0] / rounds.latency_ms[:, 1]
    assert np.mean(ratios > 1) == pytest.approx(0.5)
    assert np.median(ratios) == pytest.approx(1.0, abs=2e-3)


def test_slow_models_still_get_enough_rounds(monkeypatch):
    machine = FakeMachine(monkeypatch)
    assert len(take_turns([machine.runner("slow", 5.0)], seconds=1.0).latency_ms) == MIN_ROUNDS


def test_quick_models_are_called_several_times_for_one_timing(monkeypatch):
    machine = FakeMachine(monkeypatch)
    rounds = take_turns([machine.runner("quick", 2e-5), machine.runner("slow", 1e-3)], seconds=0.5)
    assert rounds.calls == (26, 1)
    np.testing.assert_allclose(rounds.latency_ms, np.tile([0.02, 1.0], (len(rounds.latency_ms), 1)))


def test_garbage_collection_is_off_meanwhile_and_on_again_even_after_a_failure(monkeypatch):
    machine = FakeMachine(monkeypatch)
    seen = []

    def watch():
        seen.append(gc.isenabled())
        if len(seen) > 200:
            raise RuntimeError("broken")
        return 0.001

    with pytest.raises(RuntimeError):
        take_turns([machine.runner("a", watch)], seconds=1.0)
    assert seen[0]
    assert not seen[-1]
    assert gc.isenabled()


def test_a_model_that_fails_is_named(write_model):
    other = write_model("b.onnx", np.ones((7, 4), np.float32))
    with pytest.raises(CheckError, match=r"b\.onnx cannot be run"):
        compare(write_model("a.onnx"), other, feed={"x": np.ones((1, 6), np.float32)})


def rounds_of(*columns, interrupted=None, repeat=20):
    table = np.tile(np.array(columns, dtype=float).T, (repeat, 1))
    marks = np.zeros(len(table), bool) if interrupted is None else np.tile(interrupted, repeat)
    return Rounds(latency_ms=table, calls=(1,) * len(columns), interrupted=marks)


def test_speedup_is_the_median_of_the_ratios_and_not_the_ratio_of_medians():
    for a, b in (((1, 2, 3), (1, 1, 1)), ((4, 6, 9), (2, 2, 9))):
        speedup = summarise(rounds_of(a, b), ["a", "b"], 1).speedups[0]
        assert speedup.median == 2.0
        assert speedup.ci95[0] <= 2.0 <= speedup.ci95[1]


def test_stability_and_its_warnings():
    calm, wild = (1.0, 1.01, 1.02), (1.0, 1.5, 2.0)
    steady = summarise(rounds_of(calm, calm), ["a", "b"], 1)
    assert steady.speedups[0].stable
    assert steady.warnings == ()
    shaky = summarise(rounds_of(calm, wild, calm), ["a", "b", "c"], 2)
    assert [speedup.stable for speedup in shaky.speedups] == [False, True]
    assert any("latency of b is unstable" in text and "2 threads" in text for text in shaky.warnings)
    assert not any("latency of c" in text for text in shaky.warnings)
    wide = summarise(rounds_of((1.0, 1.3, 1.0, 1.3, 1.1), (1.0,) * 5, repeat=4), ["a", "b"], 1)
    assert "wider than 10%" in wide.warnings[0]
    assert not wide.speedups[0].stable


def test_interrupted_rounds_are_set_aside():
    """Interruptions of 4 ms hit the slow model more often: the plain median would say 7, the truth is 3."""
    slow, quick = (7.0, 7.0, 7.0, 3.0), (1.0, 1.0, 1.0, 1.0)
    marked = rounds_of(slow, quick, interrupted=[True, True, True, False])
    found = summarise(marked, ["a", "b"], 1)
    assert found.speedups[0].median == 3.0
    assert found.speedups[0].stable
    assert found.speedups[0].rounds == 20
    assert found.speedups[0].interrupted_share == 0.75
    assert "75% of the rounds; these were set aside" in found.warnings[0]
    hopeless = summarise(rounds_of(slow, quick, interrupted=[True, True, True, False], repeat=9), ["a", "b"], 1)
    assert hopeless.speedups[0].median == 7.0
    assert not hopeless.speedups[0].stable
    assert "cannot be trusted" in hopeless.warnings[0]


def test_interruptions_are_seen_by_processor_time(monkeypatch):
    machine = FakeMachine(monkeypatch)
    processor = [0.0]
    monkeypatch.setattr(timing, "thread_time", lambda: processor[0])
    turn = iter(range(10**6))

    def sometimes():
        processor[0] += 0.002
        return 0.006 if next(turn) % 5 == 0 else 0.002

    found = take_turns([machine.runner("a", sometimes)], seconds=1.0, watch=True)
    np.testing.assert_array_equal(found.interrupted, found.latency_ms[:, 0] > 2.5)
    assert 0.15 < found.interrupted_share < 0.25
    np.testing.assert_allclose(found.without_interrupted().latency_ms, 2.0)
    assert not take_turns([machine.runner("a", sometimes)], seconds=1.0).interrupted.any()


def test_more_time_is_spent_where_nearly_all_is_interrupted_but_not_without_end(monkeypatch):
    machine = FakeMachine(monkeypatch)
    monkeypatch.setattr(timing, "thread_time", lambda: 0.0)
    found = take_turns([machine.runner("a", 0.01)], seconds=1.0, watch=True)
    assert 198 <= len(found.latency_ms) <= 202
    assert not found.calm
    assert found.without_interrupted() is found


def test_latency_figures_match_numpy():
    samples = np.random.default_rng(0).gamma(3, size=501)
    figures = Latency(samples_ms=samples, threads=2, calls=4).to_json()
    assert [figures[key] for key in ("p10", "median", "p90")] == pytest.approx(np.percentile(samples, [10, 50, 90]))
    assert (figures["runs"], figures["threads"], figures["calls_per_sample"]) == (2004, 2, 4)


@pytest.mark.parametrize("threads", [1, 2])
def test_compare_takes_paths_and_sessions(threads, write_model):
    a, b = write_model("a.onnx"), write_model("b.onnx")
    for models in ((a, str(b)), (load(a, threads, spinning=False), b)):
        found = compare(*models, threads=threads, seconds=0.02)
        document = found.to_json()
        assert document["threads"] == document["speedup"]["threads"] == threads
        assert document["baseline"]["median"] > 0
        assert found.baseline.samples_ms.shape == found.compressed.samples_ms.shape
        low, high = found.speedup.ci95
        assert low <= found.speedup.median <= high


def test_a_session_with_other_threads_is_refused(write_model):
    with pytest.raises(CheckError, match=r"threads is 1 but session B was opened with 2"):
        compare(write_model("a.onnx"), load(write_model("b.onnx"), 2), seconds=0.01)


def test_paths_are_opened_without_spinning(write_model, monkeypatch):
    opened = []

    def spy(*arguments, **keywords):
        opened.append(keywords["spinning"])
        return load(*arguments, **keywords)

    monkeypatch.setattr(latency_module, "load", spy)
    compare(write_model("a.onnx"), write_model("b.onnx"), threads=2, seconds=0.01)
    assert opened == [False, False]


def test_more_threads_than_cores_are_warned_of(monkeypatch):
    monkeypatch.setattr(latency_module, "available_cores", lambda: 2)
    assert latency_module.crowding(2) == ()
    assert "3 threads share 2 cores" in latency_module.crowding(3)[0]


def test_bench_gives_a_document_of_plain_json(write_model):
    files = [write_model("a.onnx"), write_model("b.onnx")]
    document = bench(files, seconds=0.05)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    first, second = document["models"]
    assert first["file"].endswith("a.onnx")
    assert first["speedup"] is None
    assert second["speedup"]["median"] > 0
    assert first["size_bytes"] == files[0].stat().st_size
    assert first["inputs"] == {"x": [1, 6]}
    assert len(bench(files[:1], seconds=0.01)["models"]) == 1


def test_bench_refuses_what_it_cannot_measure(write_model, tmp_path):
    for wrong in ([], "a.onnx", tmp_path):
        with pytest.raises(CheckError, match="paths"):
            bench(wrong)
    with pytest.raises(CheckError, match="seconds"):
        bench([write_model()], seconds=0)
    with pytest.raises(CheckError, match="threads"):
        bench([write_model()], threads=0)
    with pytest.raises(CheckError, match="--shape wide=VALUE"):
        bench([write_model(features="wide")], seconds=0.01)
    assert bench([write_model(features="wide")], seconds=0.01, shapes={"wide": 6})["models"][0]["inputs"] == {
        "x": [1, 6]
    }
