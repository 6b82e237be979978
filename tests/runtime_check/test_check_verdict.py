from __future__ import annotations

import numpy as np
import pytest

from runtime_check.accuracy import PairedAccuracy
from runtime_check.errors import CheckError
from runtime_check.figures import Latency, Speedup
from runtime_check.latency import Comparison
from runtime_check.parity import Parity
from runtime_check.verdict import Limits, default_tolerance, judge

GOOD = Parity(max_abs_diff=1e-6, max_rel_diff=1e-6, argmax_agreement=1.0, samples=100)


def accuracy(lost=0, won=0, samples=1000):
    return PairedAccuracy(
        samples=samples, baseline_correct=900, compressed_correct=900 - lost + won, lost=lost, won=won
    )


def latency(speedup=2.0, interval=(1.9, 2.1), median=1.0):
    side = Latency(samples_ms=np.full(10, median), threads=1)
    return Comparison(
        baseline=side,
        compressed=side,
        speedup=Speedup(median=speedup, ci95=interval, stable=True, threads=1, rounds=99),
        warnings=(),
    )


def judged(parity=GOOD, lost=0, won=0, measured=None, **limits):
    return judge(Limits(**limits), parity=parity, accuracy=accuracy(lost, won), latency=measured or latency())


def gate(verdict, name):
    return next(gate for gate in verdict["gates"] if gate["name"] == name)


def test_only_parity_is_held_without_limits():
    verdict = judged(lost=900)
    assert verdict["passed"]
    assert [gate["name"] for gate in verdict["gates"]] == ["parity"]
    assert set(verdict["gates"][0]) == {"name", "limit", "value", "passed", "detail"}


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (1e-3, True), (1.001e-3, False), (None, False)])
def test_parity_gate(difference, passed):
    parity = Parity(max_abs_diff=difference, max_rel_diff=difference, argmax_agreement=1.0, samples=8)
    verdict = judged(parity)
    assert verdict["passed"] is passed
    assert gate(verdict, "parity")["value"] == difference


@pytest.mark.parametrize(("lost", "won", "passed"), [(5, 0, True), (6, 0, False), (20, 15, True), (0, 30, True)])
def test_accuracy_gate_takes_the_limit_itself(lost, won, passed):
    found = gate(judged(lost=lost, won=won, max_drop=0.5), "accuracy")
    assert found["passed"] is passed
    assert found["value"] == pytest.approx((lost - won) / 10)
    assert f"{lost} lost, {won} won" in found["detail"]


def test_accuracy_gate_says_what_the_sample_does_not_prove():
    assert "do not prove it" in gate(judged(lost=20, won=15, max_drop=0.5), "accuracy")["detail"]
    assert "do not rule it out" in gate(judged(lost=20, won=10, max_drop=0.5), "accuracy")["detail"]
    assert "prove" not in gate(judged(max_drop=5), "accuracy")["detail"]


def test_speed_gate_uses_the_median_and_tells_of_the_interval():
    found = gate(judged(measured=latency(1.6, (1.4, 1.8)), min_speedup=1.5), "speed")
    assert found["passed"]
    assert "does not hold" in found["detail"]
    assert "holds too" in gate(judged(min_speedup=1.5), "speed")["detail"]
    assert not judged(measured=latency(1.49, (1.4, 1.8)), min_speedup=1.5)["passed"]


def test_latency_gate_is_on_the_median():
    assert judged(measured=latency(median=5.0), max_latency_ms=5)["passed"]
    assert not judged(measured=latency(median=5.01), max_latency_ms=5)["passed"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_drop", float("nan")),
        ("max_drop", 101),
        ("max_drop", "1"),
        ("min_speedup", 0),
        ("min_speedup", float("inf")),
        ("max_latency_ms", -1),
        ("max_latency_ms", True),
        ("parity_tolerance", -1e-3),
    ],
)
def test_senseless_limits_are_named(name, value):
    with pytest.raises(CheckError, match=name):
        Limits(**{name: value})


def test_warnings_are_kept_once_each():
    verdict = judge(Limits(), parity=GOOD, accuracy=accuracy(), latency=latency(), warnings=["b", "a", "b"])
    assert verdict["warnings"] == ["b", "a"]


def test_float16_recipes_get_a_wider_tolerance():
    assert default_tolerance({"export": {"values": "float16"}}) == 1e-2
    for recipe in (None, {}, {"export": None}, {"export": {"values": "float32"}}, "float16", {"export": "float16"}):
        assert default_tolerance(recipe) == 1e-3
