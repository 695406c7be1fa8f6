"""Pausing of sessions: those that are not read are paused, and none stays paused that has nothing to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import pytest

from fastn_p2p_actors.network.connections.session_pausing import SessionPausing
from fastn_p2p_actors.network.wire import messages as wire
from tests.support.fast_time import run_fast

FEW: Final = 8
"""Sessions that are not paused early."""
SOON: Final = 0.01
"""Seconds within which a session that has nothing to read writes again."""


class StubLeg:
    """Leg whose reader a test plays."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_slow = False
        self.has_backlog = True
        """True at first: a new leg has not read anything yet."""
        self.peer_paused = False
        self.paused_at = 0.0
        self.on_flow: Callable[[Any], object] | None = None

    @property
    def is_fast(self) -> bool:
        return not self.is_slow and not self.has_backlog

    def flow(self) -> None:
        """Report that bytes were read, or may be read again."""
        if self.on_flow is not None:
            self.on_flow(self)


class Sessions:
    """Sessions of one connection, whose bytes are read at once unless a test says otherwise."""

    def __init__(self) -> None:
        self.sent: list[wire.WireMessage] = []
        self.pausing = SessionPausing(self.sent.append)
        self.pausing.peer_pauses = True
        self.legs: list[StubLeg] = []

    def add(self) -> StubLeg:
        leg = StubLeg(len(self.legs))
        self.legs.append(leg)
        self.pausing.add(leg.number, cast(Any, leg))
        return leg

    async def fill(self) -> None:
        """Add as many sessions as there may be without pauses, and one more, all of which are read."""
        for _ in range(FEW + 1):
            self.add().has_backlog = False
        await asyncio.sleep(SOON)
        self.sent.clear()


def test_a_new_session_is_paused_until_its_reader_has_begun() -> None:
    """Many that begin at once would fill the memory that their peer may hold."""

    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        legs = [sessions.add() for _ in range(20)]
        assert sessions.sent == [wire.Pause(leg.number) for leg in legs]
        for leg in legs:
            leg.has_backlog = False
        await asyncio.sleep(SOON)
        resumed = [message.stream for message in sessions.sent[len(legs) :] if isinstance(message, wire.Resume)]
        assert sorted(resumed) == [leg.number for leg in legs]

    run_fast(scenario())


def test_a_session_that_is_paused_for_unread_bytes_writes_again_when_they_are_read() -> None:
    """Nothing is reported when the last of them has been read."""

    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        leg = sessions.add()
        await asyncio.sleep(SOON)
        assert sessions.sent == [wire.Pause(leg.number)]
        leg.has_backlog = False
        await asyncio.sleep(SOON)
        assert sessions.sent == [wire.Pause(leg.number), wire.Resume(leg.number)]

    run_fast(scenario())


def test_a_session_is_paused_while_its_reader_is_slow() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        leg = sessions.add()
        leg.has_backlog = False
        await asyncio.sleep(SOON)
        sessions.sent.clear()
        leg.is_slow = True
        leg.flow()
        await asyncio.sleep(1)
        assert sessions.sent == [wire.Pause(leg.number)]
        leg.is_slow = False
        leg.flow()
        assert sessions.sent == [wire.Pause(leg.number), wire.Resume(leg.number)]

    run_fast(scenario())


def test_few_sessions_are_paused_only_if_much_is_unread() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        legs = [sessions.add() for _ in range(FEW)]
        await asyncio.sleep(1)
        assert not sessions.sent
        legs[0].has_backlog = False
        sessions.pausing.pause_slow()
        assert sessions.sent == [wire.Pause(leg.number) for leg in legs[1:]]
        sessions.sent.clear()
        sessions.pausing.resume_all()
        assert sessions.sent == [wire.Resume(leg.number) for leg in legs[1:]]

    run_fast(scenario())


def test_every_session_is_resumed_when_few_are_left() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        legs = [sessions.add() for _ in range(FEW + 1)]
        await asyncio.sleep(SOON)
        sessions.sent.clear()
        sessions.pausing.remove(legs[0].number)
        assert sessions.sent == [wire.Resume(leg.number) for leg in legs[1:]]

    run_fast(scenario())


def test_a_session_that_has_ended_gets_no_message() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        paused, new = sessions.add(), sessions.add()
        new.has_backlog = False
        await asyncio.sleep(SOON)
        sessions.sent.clear()
        for leg in (paused, new):
            sessions.pausing.remove(leg.number)
            leg.has_backlog = False
        await asyncio.sleep(2)
        assert not sessions.sent

    run_fast(scenario())


@pytest.mark.parametrize("reports", [1, 1000])
def test_a_session_that_is_read_while_it_is_paused_has_one_timer(monkeypatch: pytest.MonkeyPatch, reports: int) -> None:
    """However many chunks are reported meanwhile."""

    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        leg = sessions.add()
        await asyncio.sleep(SOON)
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        real = loop.call_later

        def call_later(delay: float, *call: Any, **more: Any) -> asyncio.TimerHandle:
            timers.append(delay)
            return real(delay, *call, **more)

        for _ in range(reports):
            leg.flow()
        monkeypatch.setattr(loop, "call_later", call_later)
        await asyncio.sleep(0.1)
        assert len(timers) <= 60

    run_fast(scenario())


def test_a_session_that_never_looks_fast_is_resumed_after_a_second() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        await sessions.fill()
        leg = sessions.add()
        leg.has_backlog = False
        leg.is_slow = True
        await asyncio.sleep(SOON)
        assert sessions.sent == [wire.Pause(leg.number)]
        sessions.pausing.resume_drained()
        assert len(sessions.sent) == 1
        await asyncio.sleep(1)
        sessions.pausing.resume_drained()
        assert sessions.sent[1:] == [wire.Resume(leg.number)]

    run_fast(scenario())
