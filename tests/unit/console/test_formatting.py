"""Counts, sizes, durations and times as commands print them."""

from __future__ import annotations

import pytest

from fastn_p2p.console.formatting import (
    expiry_time,
    format_count,
    format_duration,
    format_latency,
    format_memory,
    format_size,
    utc_time,
)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0.0 s"),
        (1500, "1.5 s"),
        (59_999, "60.0 s"),
        (60_000, "1 m 00 s"),
        (3_599_999, "59 m 59 s"),
        (3_600_000, "1 h 00 m"),
        (86_400_000, "1 d 0 h"),
        (10**11, "1157 d 9 h"),
    ],
)
def test_duration(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (20_000_000, "19 MiB"), (10**13, "9.1 TiB"), (10**17, "90949 TiB")],
)
def test_memory(count: int, text: str) -> None:
    assert format_memory(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(None, "-"), (0.0, "0.00"), (0.451, "0.45"), (12.34, "12.3"), (1204.4, "1204")]
)
def test_latency(milliseconds: float | None, text: str) -> None:
    assert format_latency(milliseconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (999_999, "1.0 MB"), (5 * 10**13, "50.0 TB")],
)
def test_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_one_is_no_plural() -> None:
    assert [format_count(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_times_that_no_calendar_has_are_a_question_mark() -> None:
    assert [utc_time(seconds) for seconds in (0, 10**30, -(10**15))] == ["1970-01-01T00:00:00Z", "?", "?"]


def test_expiry_says_how_far_away_it_is() -> None:
    assert expiry_time(90_000, 0) == "1970-01-02 01:00 UTC (25 hours from now)"
    assert expiry_time(600, 0) == "1970-01-01 00:10 UTC (10 minutes from now)"
    assert expiry_time(0, 60).endswith("(0 seconds from now)")
