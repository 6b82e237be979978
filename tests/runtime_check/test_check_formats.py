from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_check import formats
from runtime_check.tables import table


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.significant(0.041234), "0.0412"),
        (formats.significant(412.4), "412"),
        (formats.significant(0), "0"),
        (formats.significant(float("nan")), "–"),
        (formats.bytes_text(912), "912 B"),
        (formats.bytes_text(46_730_000), "46.7 MB"),
        (formats.bytes_text(999_700), "1.00 MB"),
        (formats.count_text(272_474), "272 k"),
        (formats.count_text(1_814_000_000), "1.81 G"),
        (formats.ms_text(0.0051), "5.10 µs"),
        (formats.ms_text(12.345), "12.3 ms"),
        (formats.seconds_text(12.5), "12.5 s"),
        (formats.seconds_text(200), "3 min 20 s"),
        (formats.seconds_text(7384), "2 h 03 min"),
        (formats.percent_text(0.9312), "93.1 %"),
        (formats.percent_text(0.9999), "99.99 %"),
        (formats.percent_text(1), "100.0 %"),
        (formats.change_text(46.7, 5.5), "8.5× smaller"),
        (formats.change_text(1, 1.2), "1.20× larger"),
        (formats.change_text(5, 5), "the same"),
        (formats.change_text(0, 5), ""),
    ],
)
def test_figures_are_written_as_people_write_them(written, expected):
    assert written == expected


@given(st.floats(0, 1e15))
def test_no_figure_is_long(value):
    for style in (formats.bytes_text, formats.count_text, formats.ms_text):
        assert len(style(value)) <= 14


def test_columns_line_up():
    text = table(["a", "b", "c"], [["x", "10", "left"], ["longer", "5", ""]])
    assert text.splitlines() == ["a        b  c", "------  --  ----", "x       10  left", "longer   5"]
