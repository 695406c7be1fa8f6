"""Keepalive: pings after silence, and reports when no answer comes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections.keepalive import Keepalive


class Loop:
    """Event loop whose time passes only in ``run``."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        timer = (when, callback)
        self._timers.append(timer)

        def cancel() -> None:
            if timer in self._timers:
                self._timers.remove(timer)

        return SimpleNamespace(cancel=cancel)

    def run(self, seconds: float, *, late: float = 0.0) -> None:
        """Let time pass. Each timer runs so many seconds ``late``."""
        ends = self.now + seconds
        while due := sorted(each for each in self._timers if each[0] <= ends):
            when, callback = due[0]
            self._timers.remove(due[0])
            self.now = max(self.now, when + late)
            callback()
        self.now = max(self.now, ends)

    @property
    def is_idle(self) -> bool:
        return not self._timers


class Watched:
    """Connection that is watched.

    Attributes:
        calls, sessions: whether calls wait, and sessions stand.
        answers: whether the peer answers pings.
        pings, silences: times of the pings and of the reports.
        end: reason for which it was closed.
    """

    def __init__(self) -> None:
        self.loop = Loop()
        self.calls = self.sessions = self.answers = False
        self.pings: list[float] = []
        self.silences: list[float] = []
        self.end = ""
        self.keepalive = Keepalive(
            cast(Any, self.loop),
            lambda: self.calls,
            lambda: self.sessions,
            self._on_ping,
            lambda: self.silences.append(self.elapsed),
            self._on_end,
        )

    @property
    def elapsed(self) -> float:
        return round(self.loop.now - 100.0, 3)

    def call(self) -> None:
        self.calls = True
        self.keepalive.expect_reply(self.loop.now)

    def hear(self) -> None:
        self.loop.now += 0.001
        self.keepalive.heard_at = self.loop.now

    def _on_ping(self) -> None:
        self.pings.append(self.elapsed)
        if self.answers:
            self.hear()

    def _on_end(self, reason: str) -> None:
        self.end = reason
        self.keepalive.stop()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_call_without_an_answer_is_reported_after_a_second(watched: Watched) -> None:
    watched.call()
    watched.loop.run(1.2)
    assert watched.pings[0] == 0.5
    assert watched.silences == [1.0]
    assert watched.keepalive.is_silent


def test_a_long_call_is_no_silence(watched: Watched) -> None:
    watched.answers = True
    watched.call()
    watched.loop.run(60)
    assert not watched.silences
    assert not watched.end
    assert len(watched.pings) < 130
    watched.calls = False
    watched.loop.run(5)
    assert watched.loop.is_idle


def test_a_peer_that_is_heard_again_is_not_silent(watched: Watched) -> None:
    """A second silence is reported again."""
    watched.call()
    watched.loop.run(3)
    watched.hear()
    assert not watched.keepalive.is_silent
    watched.loop.run(3)
    assert len(watched.silences) == 2


def test_the_connection_of_a_cut_link_is_kept_for_long(watched: Watched) -> None:
    watched.call()
    watched.loop.run(14)
    assert not watched.end
    watched.loop.run(3)
    assert "nothing heard" in watched.end


def test_a_peer_that_holds_memory_is_given_up_early(watched: Watched) -> None:
    watched.call()
    watched.keepalive.require_answer(watched.loop.now)
    watched.loop.run(7)
    assert "nothing heard" in watched.end


def test_idle_sessions_are_watched_less_often(watched: Watched) -> None:
    watched.sessions = watched.answers = True
    watched.keepalive.expect_reply(watched.loop.now)
    watched.loop.run(60)
    assert 50 <= len(watched.pings) <= 65


def test_a_doubted_path_is_silent_after_a_quarter_of_a_second(watched: Watched) -> None:
    watched.loop.now += 1
    watched.keepalive.doubt()
    watched.loop.run(0.3)
    assert watched.silences == [1.25]


def test_a_doubted_path_that_answers_costs_one_ping(watched: Watched) -> None:
    watched.loop.now += 1
    watched.keepalive.doubt()
    watched.hear()
    watched.loop.run(5)
    assert len(watched.pings) == 1
    assert not watched.silences
    assert watched.loop.is_idle


def test_a_process_that_did_not_run_does_not_blame_the_peer(watched: Watched) -> None:
    """After a stop of the process, the answer may wait to be read."""
    watched.call()
    watched.loop.run(0.6)
    watched.loop.now += 10
    watched.loop.run(0.1)
    assert not watched.silences
    watched.hear()
    watched.loop.run(0.1)
    assert not watched.silences
