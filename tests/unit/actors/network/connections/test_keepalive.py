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
        latency: seconds that its answers take.
        round_trip: seconds that a packet takes there and back.
        unread: whether bytes have arrived that were not handled yet.
        pings, silences, recoveries: times of the pings, and of the reports.
        end: reason for which it was closed.
    """

    def __init__(self) -> None:
        self.loop = Loop()
        self.calls = self.sessions = self.answers = self.unread = False
        self.received = 0
        self.latency = self.round_trip = 0.0
        self.pings: list[float] = []
        self.silences: list[float] = []
        self.recoveries: list[float] = []
        self.end = ""
        self.keepalive = Keepalive(
            cast(Any, self.loop),
            awaits_reply=lambda: self.calls,
            has_sessions=lambda: self.sessions,
            received=lambda: self.received,
            round_trip=lambda: self.round_trip,
            has_unread=lambda: self.unread,
            send_ping=self._on_ping,
            on_silent=lambda: self.silences.append(self.elapsed),
            on_recovered=lambda: self.recoveries.append(self.elapsed),
            close=self._on_end,
        )

    @property
    def elapsed(self) -> float:
        return round(self.loop.now - 100.0, 3)

    def call(self) -> None:
        self.calls = True
        self.keepalive.expect_reply(self.loop.now)

    def hear(self, size: int = 20) -> None:
        """Bytes of the peer arrive."""
        self.loop.now += 0.001
        self.received += size
        self.keepalive.last_received_at = self.loop.now

    def answer(self) -> None:
        """A pong arrives."""
        self.hear()
        self.keepalive.on_pong()

    def send_every(self, seconds: float, size: int, until: float) -> None:
        """Have the peer send so many bytes again and again."""
        when = self.loop.now + seconds
        while when < self.loop.now + until:
            self.loop.call_at(when, lambda: self.hear(size))
            when += seconds

    def _on_ping(self) -> None:
        self.pings.append(self.elapsed)
        if self.answers:
            self.loop.call_at(self.loop.now + self.latency, self.answer)

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


def test_a_silent_peer_that_answers_is_reported_once(watched: Watched) -> None:
    watched.call()
    watched.loop.run(1.2)
    for _ in range(2):
        watched.answer()
    assert watched.recoveries == [1.201]
    assert not watched.keepalive.is_silent
    watched.loop.run(2)
    assert len(watched.silences) == 2


def test_a_connection_is_in_question_until_an_answer(watched: Watched) -> None:
    watched.answers = True
    watched.latency = 0.1
    watched.keepalive.question()
    assert watched.keepalive.is_in_question
    watched.loop.run(1)
    assert watched.recoveries == [0.101]
    assert not watched.keepalive.is_in_question
    watched.answers = False
    watched.keepalive.question()
    watched.loop.run(1)
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
    watched.answer()
    assert not watched.keepalive.is_silent
    watched.loop.run(3)
    assert len(watched.silences) == 2


def test_the_connection_of_a_cut_link_is_kept_for_long(watched: Watched) -> None:
    watched.call()
    watched.loop.run(14)
    assert not watched.end
    watched.loop.run(3)
    assert "answered no ping" in watched.end


def test_a_peer_that_holds_memory_is_given_up_early() -> None:
    """Calls or sessions, and bytes that are no answers, change nothing about it."""
    for calls, sessions, size in ((True, False, 0), (False, True, 0), (False, True, 20)):
        each = Watched()
        each.calls, each.sessions = calls, sessions
        for _ in range(70):
            each.keepalive.require_answer(each.loop.now)
            each.loop.run(0.1)
            if size and not each.end:
                each.hear(size)
        assert "answered no ping" in each.end, (calls, sessions, size)


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


def test_a_doubted_path_gets_three_round_trips(watched: Watched) -> None:
    watched.loop.now += 1
    watched.round_trip = 0.3
    watched.keepalive.doubt()
    watched.loop.run(3)
    assert watched.silences == [1.9]


def test_a_doubted_path_gets_no_more_time_although_answers_waited_behind_a_file(watched: Watched) -> None:
    watched.answers, watched.latency = True, 0.9
    watched.keepalive.ping()
    watched.loop.run(2)
    watched.answers = False
    watched.keepalive.doubt()
    watched.loop.run(1)
    assert watched.silences[-1] == 2.25


def test_bytes_that_wait_here_are_no_answer_to_a_doubt(watched: Watched) -> None:
    """QUIC's buffers may hold megabytes of a path that is dead."""
    watched.loop.now += 1
    watched.send_every(0.01, 100_000, 0.5)
    watched.keepalive.doubt()
    watched.loop.run(0.4)
    assert watched.silences == [1.25]
    watched.loop.run(0.2)
    watched.answer()
    assert not watched.keepalive.is_silent


def test_a_doubted_path_that_answers_costs_one_ping(watched: Watched) -> None:
    watched.loop.now += 1
    watched.answers = True
    watched.keepalive.doubt()
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
    watched.answer()
    watched.loop.run(0.1)
    assert not watched.silences


# ── paths that work in one direction ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [20, 1200])
def test_bytes_are_no_answer(watched: Watched, size: int) -> None:
    """The peer's pings and repeated packets arrive, and calls do not get through."""
    watched.send_every(0.1, size, 10)
    watched.call()
    watched.loop.run(2)
    assert len(watched.silences) == 1
    assert watched.silences[0] <= 1.6
    watched.loop.run(5)
    assert watched.keepalive.is_silent
    watched.answer()
    assert not watched.keepalive.is_silent


def test_bytes_of_an_idle_peer_are_no_answer_to_a_doubt(watched: Watched) -> None:
    watched.loop.now += 1
    watched.send_every(0.05, 20, 5)
    watched.keepalive.doubt()
    watched.loop.run(0.5)
    assert watched.silences[0] <= 1.3


def test_a_doubt_shortens_the_time_for_an_earlier_ping(watched: Watched) -> None:
    watched.call()
    watched.loop.run(0.55)
    for _ in range(5):
        watched.keepalive.doubt()
        watched.loop.run(0.05)
    watched.loop.run(0.1)
    assert watched.silences == [0.8]


def test_sessions_are_watched_although_bytes_arrive(watched: Watched) -> None:
    watched.sessions = True
    watched.send_every(0.1, 1000, 10)
    watched.keepalive.expect_reply(watched.loop.now)
    watched.loop.run(2)
    assert len(watched.silences) == 1


def test_a_large_reply_is_an_answer(watched: Watched) -> None:
    """The pong waits behind it."""
    watched.send_every(0.01, 1200, 30)
    watched.call()
    watched.loop.run(29)
    assert not watched.silences
    watched.loop.run(3)
    assert watched.keepalive.is_silent, "the flow has ended without a pong"


def test_bytes_that_wait_here_do_not_blame_the_peer(watched: Watched) -> None:
    watched.call()
    watched.unread = True
    watched.loop.run(20)
    assert not watched.silences
    assert not watched.end
    watched.unread = False
    watched.loop.run(2)
    assert len(watched.silences) == 1


def test_a_slow_peer_is_silent_at_most_once(watched: Watched) -> None:
    """Later answers may take as long as the first one did."""
    watched.answers, watched.latency = True, 0.7
    watched.call()
    watched.loop.run(60)
    assert len(watched.silences) <= 1
    watched.answers = False
    watched.loop.run(3)
    assert watched.keepalive.is_silent


def test_a_busy_connection_costs_a_ping_a_second(watched: Watched) -> None:
    watched.answers = True
    watched.send_every(0.01, 20, 30)
    watched.call()
    watched.loop.run(29)
    assert not watched.silences
    assert len(watched.pings) <= 30


def test_sessions_of_a_silent_peer_are_kept_for_long(watched: Watched) -> None:
    """The peer was asked to answer once, and holds little memory now."""
    watched.sessions = True
    watched.keepalive.require_answer(watched.loop.now)
    watched.loop.run(14)
    assert watched.silences
    assert not watched.end
    watched.loop.run(3)
    assert watched.end
