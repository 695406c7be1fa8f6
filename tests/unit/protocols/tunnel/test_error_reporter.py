"""Rate-limited error messages: one when a problem starts, one when it ends."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from fastn_p2p.protocols.tunnel.error_reporter import FIRST_PAUSE, LONGEST_PAUSE, ErrorReporter


class Clock:
    """Goes where it is told."""

    def __init__(self) -> None:
        self.time = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.time + seconds, len(self._calls), call))

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while self._calls and self._calls[0][0] <= end:
            self.time, _, call = heapq.heappop(self._calls)
            call()
        self.time = end


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def trouble(clock: Clock, told: list[str]) -> ErrorReporter:
    return ErrorReporter(told.append, now=lambda: clock.time, call_later=clock.later)


def test_nothing_is_told_while_all_is_well(trouble: ErrorReporter, told: list[str]) -> None:
    trouble.report_success()
    assert told == []


def test_the_same_trouble_is_told_once_and_its_end_with_the_number_of_victims(
    trouble: ErrorReporter, told: list[str], clock: Clock
) -> None:
    for _ in range(100):
        trouble.report_failure("no way")
    assert told == ["no way"]
    clock.advance(1)
    trouble.report_success()
    trouble.report_success()
    assert told == ["no way", "connections work again; 100 connections were closed meanwhile"]
    clock.advance(1)
    trouble.report_failure("no way")
    clock.advance(5)
    trouble.report_success()
    assert told[2:] == ["no way", "connections work again; one connection was closed meanwhile"]


def test_fast_changes_report_only_the_last_state(trouble: ErrorReporter, told: list[str], clock: Clock) -> None:
    for reason in ("a", "b", "c", "d"):
        trouble.report_failure(reason)
    assert told == ["a"]
    clock.advance(LONGEST_PAUSE)
    assert told == ["a", "d"]


def test_a_short_trouble_that_is_over_before_it_could_be_told_is_not_told(
    trouble: ErrorReporter, told: list[str], clock: Clock
) -> None:
    trouble.report_failure("a")
    clock.advance(FIRST_PAUSE * 2)
    trouble.report_success()
    trouble.report_failure("b")
    trouble.report_success()
    clock.advance(LONGEST_PAUSE)
    assert len(told) == 2


def test_a_flapping_problem_does_not_flood(trouble: ErrorReporter, told: list[str], clock: Clock) -> None:
    for _ in range(3600):
        trouble.report_failure("no way")
        clock.advance(0.5)
        trouble.report_success()
        clock.advance(0.5)
    assert len(told) < 3600 / LONGEST_PAUSE + 12
    clock.advance(2 * LONGEST_PAUSE)
    trouble.report_failure("something else")
    assert told[-1] == "something else"
