"""Handshakes of peer daemons: which ones begin, which are refused, and which must prove their address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from iroh.iroh_ffi import EndpointId, IncomingAddr, SecretKey

from fastn_p2p_actors.network.transport import endpoint
from fastn_p2p_actors.network.transport.endpoint import NetworkEndpoint
from fastn_p2p_actors.network.transport.peer_limits import HANDSHAKES

RELAY = "http://198.51.100.1:3340/"
DIRECT = IncomingAddr.IP(addr="192.0.2.7:4000")


class StubIncoming:
    """Handshake from an address; ``outcome`` says how it was answered: an accepted one stays in progress."""

    def __init__(self, address: Any, *, proved: bool = False) -> None:
        self._address = address
        self._proved = proved
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def remote_addr(self) -> Any:
        return self._address

    async def remote_addr_validated(self) -> bool:
        return self._proved

    async def accept(self) -> Any:
        self.outcome.set_result("accepted")
        await asyncio.Event().wait()

    async def refuse(self) -> None:
        self.outcome.set_result("refused")

    async def retry(self) -> None:
        self.outcome.set_result("retry")


class Listener:
    """Endpoint that accepts handshakes of a test."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[StubIncoming] = asyncio.Queue()
        raw = SimpleNamespace(id=lambda: SecretKey.generate().public(), accept_next=self._incoming.get)
        self.endpoint = NetworkEndpoint(cast(Any, raw), "internet", frozenset())
        self.endpoint.accept_into(lambda _: None)

    async def handshake(self, address: Any, *, proved: bool = False) -> str:
        """Return how a handshake from the address is answered."""
        incoming = StubIncoming(address, proved=proved)
        self._incoming.put_nowait(incoming)
        return await incoming.outcome

    async def close(self) -> None:
        tasks = list(self.endpoint._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    yield listener
    await listener.close()


def relayed(key: EndpointId) -> Any:
    return IncomingAddr.RELAY(url=RELAY, endpoint_id=key)


async def test_peers_of_one_relay_are_limited_one_by_one(listener: Listener) -> None:
    """An endpoint that floods is refused, and a hundred others are not."""
    flooding = SecretKey.generate().public()
    flood = [await listener.handshake(relayed(flooding)) for _ in range(2 * int(HANDSHAKES.endpoint.burst))]
    assert flood.count("refused") >= HANDSHAKES.endpoint.burst - HANDSHAKES.endpoint.per_second
    honest = [await listener.handshake(relayed(SecretKey.generate().public())) for _ in range(100)]
    assert honest == ["accepted"] * 100


async def test_an_address_whose_handshake_stays_unanswered_must_prove_itself(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the handshake that came through the relay is accepted: replies may be lost on the direct path."""
    monkeypatch.setattr(endpoint, "_ROUND_TRIP", 0.0)
    assert await listener.handshake(DIRECT) == "accepted"
    assert await listener.handshake(DIRECT) == "retry"
    assert await listener.handshake(relayed(SecretKey.generate().public())) == "accepted"
    assert await listener.handshake(DIRECT, proved=True) == "accepted"
    assert await listener.handshake(IncomingAddr.IP(addr="192.0.2.8:4000")) == "accepted"


async def test_two_handshakes_at_once_from_one_address_are_accepted(listener: Listener) -> None:
    assert [await listener.handshake(DIRECT) for _ in range(2)] == ["accepted", "accepted"]
