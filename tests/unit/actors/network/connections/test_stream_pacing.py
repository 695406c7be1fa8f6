"""Pacing of session streams beside calls, with a clock that the test sets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastn_p2p_actors.network.connections.stream_pacing import BLOCK, StreamPacer


class PacerSetup:
    """Pacer with a clock that sleeping advances, and with counted pings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.pings = 0
        self.answer_after: float | None = None
        """Seconds until a ping is answered; None for never."""
        self._answer_at = float("inf")
        self.pacer = StreamPacer(lambda: self.now, self._ping)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    def _ping(self) -> None:
        self.pings += 1
        if self.answer_after is not None:
            self._answer_at = self.now + self.answer_after

    async def _sleep(self, seconds: float) -> None:
        end = self.now + seconds
        if self._answer_at <= end:
            self.now, self._answer_at = self._answer_at, float("inf")
            self.pacer.on_pong()
        self.now = end

    def write(self, size: int, *, answer_after: float | None = None) -> float:
        """Return the seconds that writing ``size`` bytes in blocks takes."""
        self.answer_after = answer_after
        began = self.now
        for _ in range(size // BLOCK):
            asyncio.run(self.pacer.wait(BLOCK))
        return self.now - began


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> PacerSetup:
    return PacerSetup(monkeypatch)


def call_again_and_again(setup: PacerSetup) -> None:
    for _ in range(5):
        setup.pacer.on_call()


def test_nothing_is_asked_for_without_calls(setup: PacerSetup) -> None:
    assert not setup.pacer.is_active
    call_again_and_again(setup)
    assert setup.pacer.is_active
    setup.now += 1
    assert not setup.pacer.is_active


def test_one_or_two_calls_slow_nothing_down(setup: PacerSetup) -> None:
    """A few calls precede a file transfer. Many calls that are far apart do not count either."""
    for _ in range(2):
        setup.pacer.on_call()
        setup.pacer.on_reply()
        assert not setup.pacer.is_active
    for _ in range(10):
        setup.now += 1
        setup.pacer.on_call()
        assert not setup.pacer.is_active


def test_slow_calls_one_after_the_other_count_as_such(setup: PacerSetup) -> None:
    """The time between a reply and the next call counts, not the duration of the call."""
    for _ in range(3):
        setup.pacer.on_call()
        setup.now += 0.2
        setup.pacer.on_reply()
        setup.now += 0.1
    setup.pacer.on_call()
    assert setup.pacer.is_active


def test_streams_keep_to_their_pace(setup: PacerSetup) -> None:
    pace = setup.pacer.bytes_per_second
    took = setup.write(10 * int(pace) // BLOCK * BLOCK)
    assert took == pytest.approx(10, rel=0.02)


def test_time_without_writing_is_not_made_up_for(setup: PacerSetup) -> None:
    setup.write(BLOCK)
    setup.now += 60
    assert setup.write(100 * BLOCK) == pytest.approx(100 * BLOCK / setup.pacer.bytes_per_second, rel=0.05)


def test_the_pace_grows_while_pings_come_back_soon(setup: PacerSetup) -> None:
    before = setup.pacer.bytes_per_second
    setup.write(200 * BLOCK, answer_after=0.0004)
    assert setup.pacer.bytes_per_second > 1.5 * before


def test_the_pace_falls_when_pings_take_longer_and_not_without_end(setup: PacerSetup) -> None:
    before = setup.pacer.bytes_per_second
    setup.write(10 * BLOCK, answer_after=0.0004)
    setup.write(1000 * BLOCK, answer_after=0.02)
    assert 10e6 < setup.pacer.bytes_per_second < before
    slowest = setup.pacer.bytes_per_second
    setup.write(1000 * BLOCK, answer_after=0.02)
    assert setup.pacer.bytes_per_second == slowest


def test_a_far_peer_is_no_slower_than_it_has_to_be(setup: PacerSetup) -> None:
    """The difference to the fastest ping counts, not the duration of a ping."""
    before = setup.pacer.bytes_per_second
    setup.write(2000 * BLOCK, answer_after=0.1)
    assert setup.pacer.bytes_per_second > before


def test_one_ping_at_a_time_and_not_too_many(setup: PacerSetup) -> None:
    setup.write(100 * BLOCK)
    assert setup.pings == 1  # nobody has answered
    setup.pacer.on_pong()
    began = setup.now
    setup.write(1000 * BLOCK, answer_after=0.0001)
    assert setup.pings - 1 <= (setup.now - began) / 0.005 + 1


def test_a_pong_without_a_ping_changes_nothing(setup: PacerSetup) -> None:
    before: Any = setup.pacer.bytes_per_second
    setup.pacer.on_pong()
    assert setup.pacer.bytes_per_second == before
