"""Rate-limited error messages: one when a problem starts, one when it ends."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from fastn_p2p.protocols._shared.error_reporter import FIRST_DELAY, LONGEST_DELAY, ErrorReporter


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
def messages() -> list[str]:
    return []


@pytest.fixture
def reporter(clock: Clock, messages: list[str]) -> ErrorReporter:
    return ErrorReporter(messages.append, now=lambda: clock.time, call_later=clock.later)


def test_nothing_is_told_while_all_is_well(reporter: ErrorReporter, messages: list[str]) -> None:
    reporter.report_success()
    assert messages == []


def test_the_same_trouble_is_told_once_and_its_end_with_the_number_of_victims(
    reporter: ErrorReporter, messages: list[str], clock: Clock
) -> None:
    for _ in range(100):
        reporter.report_failure("no way")
    assert messages == ["no way"]
    clock.advance(1)
    reporter.report_success()
    reporter.report_success()
    assert messages == ["no way", "connections work again; 100 connections were closed meanwhile"]
    clock.advance(1)
    reporter.report_failure("no way")
    clock.advance(5)
    reporter.report_success()
    assert messages[2:] == ["no way", "connections work again; one connection was closed meanwhile"]


def test_fast_changes_report_only_the_last_state(reporter: ErrorReporter, messages: list[str], clock: Clock) -> None:
    for reason in ("a", "b", "c", "d"):
        reporter.report_failure(reason)
    assert messages == ["a"]
    clock.advance(LONGEST_DELAY)
    assert messages == ["a", "d"]


def test_a_short_trouble_that_is_over_before_it_could_be_told_is_not_told(
    reporter: ErrorReporter, messages: list[str], clock: Clock
) -> None:
    reporter.report_failure("a")
    clock.advance(FIRST_DELAY * 2)
    reporter.report_success()
    reporter.report_failure("b")
    reporter.report_success()
    clock.advance(LONGEST_DELAY)
    assert len(messages) == 2


def test_a_flapping_problem_does_not_flood(reporter: ErrorReporter, messages: list[str], clock: Clock) -> None:
    for _ in range(3600):
        reporter.report_failure("no way")
        clock.advance(0.5)
        reporter.report_success()
        clock.advance(0.5)
    assert len(messages) < 3600 / LONGEST_DELAY + 12
    clock.advance(2 * LONGEST_DELAY)
    reporter.report_failure("something else")
    assert messages[-1] == "something else"
