"""``WakeUps``: a few at a time, callers take turns, bounds, and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fastn_p2p_actors.network.serving import wake_ups
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.serving.wake_ups import WakeUps
from fastn_p2p_client.errors import DaemonBusy, IdentityFailed, Overloaded, P2PError
from tests.support.signer import Signer

ANN, BEN = b"ann", b"ben"


class Sleeping:
    """Identities that are asleep, and a supervisor that wakes one when the test says so."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.wake_ups = WakeUps(self.registry, self.wake)
        self.woken: list[str] = []
        self.outcomes: dict[str, asyncio.Future[None]] = {}
        self.again: list[str] = []
        self.failed: list[P2PError] = []

    async def wake(self, name: str) -> None:
        self.woken.append(name)
        await self.outcomes.setdefault(name, asyncio.get_running_loop().create_future())

    def identity(self, name: str) -> OnlineIdentity:
        known = self.registry.by_name(name)
        if known is None:
            known = OnlineIdentity(name, Signer(name).key, None)
            self.registry.add_identity(known)
        return known

    def hold(self, name: str, caller: bytes = ANN) -> None:
        self.wake_ups.hold(self.identity(name), caller, lambda: self.again.append(name), self.failed.append)

    async def resolve(self, name: str, error: P2PError | None = None) -> None:
        if error is None:
            self.wake_ups.on_registered(name)
            self.registry.remove_identity(self.identity(name))
            self.outcomes[name].set_result(None)
        else:
            self.outcomes[name].set_exception(error)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def sleeping() -> AsyncIterator[Sleeping]:
    found = Sleeping()
    yield found
    found.wake_ups.close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the limits to one wake-up at a time and three requests, two of them for one identity."""
    monkeypatch.setattr(wake_ups, "PARALLEL", 1)
    monkeypatch.setattr(wake_ups, "MAX_HELD", 3)
    monkeypatch.setattr(wake_ups, "MAX_HELD_PER_IDENTITY", 2)


async def test_requests_for_one_identity_wake_it_once(sleeping: Sleeping) -> None:
    sleeping.hold("alice")
    sleeping.hold("alice", BEN)
    await asyncio.sleep(0)
    assert sleeping.woken == ["alice"]
    assert len(sleeping.wake_ups) == 2
    await sleeping.resolve("alice")
    assert sleeping.again == ["alice", "alice"]
    assert len(sleeping.wake_ups) == 0


async def test_at_most_eight_wake_at_a_time(sleeping: Sleeping) -> None:
    for number in range(10):
        sleeping.hold(f"id{number}")
    await asyncio.sleep(0)
    assert len(sleeping.woken) == wake_ups.PARALLEL == 8
    await sleeping.resolve("id0")
    assert sleeping.woken[8:] == ["id8"]


@pytest.mark.usefixtures("few")
async def test_callers_alternate(sleeping: Sleeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "MAX_HELD", 100)
    for number in range(5):
        sleeping.hold(f"ann{number}")
    sleeping.hold("ben0", BEN)
    await asyncio.sleep(0)
    for expected in ("ann0", "ann1", "ben0", "ann2"):
        assert sleeping.woken[-1] == expected
        await sleeping.resolve(expected)


@pytest.mark.usefixtures("few")
async def test_requests_above_the_limits_are_overloaded(sleeping: Sleeping) -> None:
    for name in ("alice", "alice", "alice", "bob", "carol"):
        sleeping.hold(name)
    assert [type(each) for each in sleeping.failed] == [Overloaded, Overloaded]
    assert len(sleeping.wake_ups) == 3


async def test_identity_that_cannot_be_woken_is_no_longer_online(sleeping: Sleeping) -> None:
    sleeping.hold("alice")
    await asyncio.sleep(0)
    await sleeping.resolve("alice", IdentityFailed(identity="alice", reason="it keeps ending"))
    assert sleeping.registry.by_name("alice") is None
    assert sleeping.again == ["alice"]  # and finds that it is offline


async def test_identity_stays_asleep_while_the_supervisor_is_busy(sleeping: Sleeping) -> None:
    sleeping.hold("alice")
    await asyncio.sleep(0)
    await sleeping.resolve("alice", DaemonBusy(actor="supervisor"))
    assert sleeping.registry.by_name("alice") is not None
    assert [type(each) for each in sleeping.failed] == [DaemonBusy]


async def test_close_fails_what_waits(sleeping: Sleeping) -> None:
    sleeping.hold("alice")
    sleeping.wake_ups.close()
    assert [type(each) for each in sleeping.failed] == [DaemonBusy]
