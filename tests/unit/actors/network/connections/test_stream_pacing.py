"""Pacing of session streams beside calls, with a clock that the test sets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastn_p2p_actors.network.connections.stream_pacing import BLOCK, StreamPacer


class Scene:
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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def call_again_and_again(scene: Scene) -> None:
    for _ in range(5):
        scene.pacer.on_call()


def test_nothing_is_asked_for_without_calls(scene: Scene) -> None:
    assert not scene.pacer.is_active
    call_again_and_again(scene)
    assert scene.pacer.is_active
    scene.now += 1
    assert not scene.pacer.is_active


def test_one_or_two_calls_slow_nothing_down(scene: Scene) -> None:
    """A few calls precede a file transfer. Many calls that are far apart do not count either."""
    for _ in range(2):
        scene.pacer.on_call()
        scene.pacer.on_reply()
        assert not scene.pacer.is_active
    for _ in range(10):
        scene.now += 1
        scene.pacer.on_call()
        assert not scene.pacer.is_active


def test_slow_calls_one_after_the_other_count_as_such(scene: Scene) -> None:
    """The time between a reply and the next call counts, not the duration of the call."""
    for _ in range(3):
        scene.pacer.on_call()
        scene.now += 0.2
        scene.pacer.on_reply()
        scene.now += 0.1
    scene.pacer.on_call()
    assert scene.pacer.is_active


def test_streams_keep_to_their_pace(scene: Scene) -> None:
    pace = scene.pacer.bytes_per_second
    took = scene.write(10 * int(pace) // BLOCK * BLOCK)
    assert took == pytest.approx(10, rel=0.02)


def test_time_without_writing_is_not_made_up_for(scene: Scene) -> None:
    scene.write(BLOCK)
    scene.now += 60
    assert scene.write(100 * BLOCK) == pytest.approx(100 * BLOCK / scene.pacer.bytes_per_second, rel=0.05)


def test_the_pace_grows_while_pings_come_back_soon(scene: Scene) -> None:
    before = scene.pacer.bytes_per_second
    scene.write(200 * BLOCK, answer_after=0.0004)
    assert scene.pacer.bytes_per_second > 1.5 * before


def test_the_pace_falls_when_pings_take_longer_and_not_without_end(scene: Scene) -> None:
    before = scene.pacer.bytes_per_second
    scene.write(10 * BLOCK, answer_after=0.0004)
    scene.write(1000 * BLOCK, answer_after=0.02)
    assert 10e6 < scene.pacer.bytes_per_second < before
    slowest = scene.pacer.bytes_per_second
    scene.write(1000 * BLOCK, answer_after=0.02)
    assert scene.pacer.bytes_per_second == slowest


def test_a_far_peer_is_no_slower_than_it_has_to_be(scene: Scene) -> None:
    """The difference to the fastest ping counts, not the duration of a ping."""
    before = scene.pacer.bytes_per_second
    scene.write(2000 * BLOCK, answer_after=0.1)
    assert scene.pacer.bytes_per_second > before


def test_one_ping_at_a_time_and_not_too_many(scene: Scene) -> None:
    scene.write(100 * BLOCK)
    assert scene.pings == 1  # nobody has answered
    scene.pacer.on_pong()
    began = scene.now
    scene.write(1000 * BLOCK, answer_after=0.0001)
    assert scene.pings - 1 <= (scene.now - began) / 0.01 + 1


def test_an_answer_that_nobody_asked_for_changes_nothing(scene: Scene) -> None:
    before: Any = scene.pacer.bytes_per_second
    scene.pacer.on_pong()
    assert scene.pacer.bytes_per_second == before
