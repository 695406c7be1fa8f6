"""Handshakes of peer daemons: which ones begin, which are refused, and which must prove their address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from iroh.iroh_ffi import EndpointId, IncomingAddr, SecretKey

from fastn_p2p_actors.network.transport import endpoint, penalties
from fastn_p2p_actors.network.transport.endpoint import NetworkEndpoint
from fastn_p2p_actors.network.transport.peer_limits import HANDSHAKES
from fastn_p2p_actors.network.wire.messages import CLOSE_PROTOCOL_ERROR

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

    async def ignore(self) -> None:
        self.outcome.set_result("ignored")


class StubAccepted(StubIncoming):
    """Handshake that completes for an endpoint."""

    def __init__(self, address: Any, endpoint: EndpointId) -> None:
        super().__init__(address)
        self._endpoint = endpoint

    async def accept(self) -> Any:
        return self

    async def connect(self) -> Any:
        return SimpleNamespace(remote_id=lambda: self._endpoint, close=self._on_close, outcome=self.outcome)

    def _on_close(self, code: int, _reason: bytes) -> None:
        self.outcome.set_result(f"closed with {code}")


class Listener:
    """Endpoint that accepts handshakes of a test."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[StubIncoming] = asyncio.Queue()
        raw = SimpleNamespace(id=lambda: SecretKey.generate().public(), accept_next=self._incoming.get)
        self.endpoint = NetworkEndpoint(cast(Any, raw), "internet", frozenset())
        self.known: set[bytes] = set()
        self.endpoint.accept_into(
            lambda connection: cast(Any, connection).outcome.set_result("accepted"), is_known=self.known.__contains__
        )

    async def complete(self, address: Any, key: EndpointId) -> str:
        """Return how the handshake of an endpoint is answered once it is complete: "accepted", or its close code."""
        incoming = StubAccepted(address, key)
        self._incoming.put_nowait(incoming)
        return await incoming.outcome

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


def punish(listener: Listener, key: EndpointId, address: str) -> None:
    """Give an endpoint the longest penalty."""
    given, now = listener.endpoint.penalties, asyncio.get_running_loop().time()
    assert given.on_abuse(bytes(key.to_bytes()), [address], "", 1000.0, now)


async def test_packets_from_the_address_of_a_punished_endpoint_are_dropped(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties, "FIRST_PENALTY", 60.0)
    monkeypatch.setattr(penalties, "LONGEST_PENALTY", 60.0)
    punish(listener, SecretKey.generate().public(), "192.0.2.7:4000")
    assert await listener.handshake(DIRECT) == "ignored"
    assert await listener.handshake(IncomingAddr.IP(addr="192.0.2.7:4001")) == "accepted"


async def test_a_punished_endpoint_is_refused_wherever_it_comes_from(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a new address right after the handshake, and from then on before it. Through a relay before it."""
    monkeypatch.setattr(penalties, "FIRST_PENALTY", 60.0)
    monkeypatch.setattr(penalties, "LONGEST_PENALTY", 60.0)
    key = SecretKey.generate().public()
    punish(listener, key, "192.0.2.7:4000")
    moved = IncomingAddr.IP(addr="192.0.2.7:4001")
    assert await listener.complete(moved, key) == f"closed with {CLOSE_PROTOCOL_ERROR}"
    assert await listener.handshake(moved) == "ignored"
    assert await listener.handshake(relayed(key)) == "refused"
    assert await listener.complete(IncomingAddr.IP(addr="192.0.2.7:4002"), SecretKey.generate().public()) == "accepted"


async def test_a_known_peer_has_no_penalty(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has become known since: its endpoint is in the address book now."""
    monkeypatch.setattr(penalties, "FIRST_PENALTY", 60.0)
    monkeypatch.setattr(penalties, "LONGEST_PENALTY", 60.0)
    key = SecretKey.generate().public()
    punish(listener, key, "192.0.2.7:4000")
    listener.known.add(bytes(key.to_bytes()))
    assert await listener.complete(IncomingAddr.IP(addr="192.0.2.7:4001"), key) == "accepted"
    assert await listener.complete(relayed(key), key) == "accepted"
