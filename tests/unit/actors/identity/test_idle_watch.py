"""``IdleWatch``: when an identity falls asleep, and in which order it says so."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_actors.identity import idle_watch
from fastn_p2p_actors.identity.idle_watch import IdleWatch
from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import SleepReply


class Identity:
    """An identity of which the test says what uses it. Each look advances the clock by a quarter of its idle time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[str] = []
        self.busy = [False]
        self.replies = [SleepReply(False, 0, False)]
        self.at_attempt: list[bool | Exception] = [True]
        self.watch = IdleWatch(4, self.is_busy, self.request, self.fall_asleep, self.stay_awake, lambda: self.now)

    def is_busy(self) -> bool:
        return self.busy.pop(0) if len(self.busy) > 1 else self.busy[0]

    async def request(self, activity: int) -> SleepReply:
        if activity < 0:
            self.now += 1
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        outcome = self.at_attempt.pop(0)
        self.steps.append(f"request at {self.now:g}")
        if isinstance(outcome, Exception):
            raise outcome
        return SleepReply(outcome, activity, False)

    async def fall_asleep(self) -> None:
        self.steps.append("supervisor")

    def stay_awake(self, register: bool) -> None:
        self.steps.append("register again" if register else "stay awake")


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> Identity:
    monkeypatch.setattr(idle_watch, "LONGEST_PAUSE", 0.0)
    return Identity()


async def run(identity: Identity) -> list[str]:
    async with asyncio.timeout(30):
        await identity.watch.run()
    return identity.steps


async def test_falls_asleep_after_the_idle_time(identity: Identity) -> None:
    """The first look sees the counter for the first time."""
    assert await run(identity) == ["supervisor", "request at 5"]


async def test_each_use_begins_the_time_anew(identity: Identity) -> None:
    identity.replies = [
        SleepReply(False, 0, False),
        SleepReply(False, 0, True),
        SleepReply(False, 1, False),
        SleepReply(False, 1, False),
    ]
    assert await run(identity) == ["supervisor", "request at 7"]


async def test_busy_protocol_keeps_it_awake(identity: Identity) -> None:
    identity.busy = [True, True, True, False]
    assert await run(identity) == ["supervisor", "request at 5"]


async def test_request_at_the_last_moment_keeps_it_awake(identity: Identity) -> None:
    identity.at_attempt = [False, True]
    assert await run(identity) == ["supervisor", "request at 5", "stay awake", "supervisor", "request at 9"]


async def test_registers_again_if_the_outcome_is_unknown(identity: Identity) -> None:
    identity.at_attempt = [ConnectionLost(what="the network process"), True]
    steps = await run(identity)
    assert steps[:3] == ["supervisor", "request at 5", "register again"]


async def test_stays_awake_without_an_idle_time(identity: Identity) -> None:
    identity.watch.set_idle(0)
    running = asyncio.create_task(identity.watch.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert identity.now == 0
    identity.watch.set_idle(4)
    async with asyncio.timeout(30):
        await running
    assert identity.steps[0] == "supervisor"
