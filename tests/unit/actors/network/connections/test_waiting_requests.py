"""Requests of identities that a connection has given up: they wait until the identity is shown again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import Delegation
from fastn_p2p_actors.network.connections import identity_exchange
from fastn_p2p_actors.network.connections.connection import PeerConnection
from fastn_p2p_actors.network.connections.session_handshake import IncomingSession
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_client.errors import DelegationExpired
from tests.support.peer_connections import StubOwner, new_connection, pop_sent
from tests.support.signer import DAY, NOW, Signer
from tests.support.two_daemons import until_awaited

BOB = Signer("bob")
KEY = bytes(BOB.key)


class Served(StubOwner):
    """Owner that records the requests and sessions that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[int] = []
        self.sessions: list[int] = []

    def on_request(self, _connection: object, request: wire.Request, _payload: bytes) -> None:
        self.requests.append(request.id)

    def on_silent(self, connection: Any) -> None: ...

    def on_recovered(self, connection: Any) -> None: ...

    def on_arrival(self, arrival: IncomingSession) -> None:
        self.sessions.append(arrival.request.id)

    def on_cancel(self, connection: Any, number: int) -> None:
        connection.requests.cancelled_early[number] = None


def request(number: int, who: Signer = BOB) -> wire.Request:
    return wire.Request(number, bytes(who.key), b"t" * 32, "Echo", "default", 1000)


async def test_a_request_of_an_identity_that_was_given_up_waits_until_it_is_shown_again() -> None:
    owner = Served()
    connection = new_connection(cast(Any, owner))
    shown = wire.Introduce(BOB.delegation())
    connection.handle(shown, b"")
    connection.introductions.evict(bytes(BOB.key))
    connection.handle(request(1), b"")
    connection.handle(request(2), b"x" * 1000)
    connection.handle(wire.Cancel(2), b"")
    connection.handle(wire.OpenSession(3, bytes(BOB.key), b"t" * 32, "Echo", "default", 1000), b"")
    assert pop_sent(connection) == [wire.RequestIntroduction(bytes(BOB.key))]
    assert (owner.requests, owner.sessions) == ([], [])
    connection.handle(shown, b"")
    assert (owner.requests, owner.sessions) == ([1], [3])
    connection.handle(request(4), b"")
    assert owner.requests == [1, 4]
    connection.close(0, "enough")


async def test_a_request_of_an_identity_whose_delegation_has_expired_waits_until_it_is_shown_again() -> None:
    """The daemon of the caller was suspended, or this machine's clock was set: the caller believes that it is known."""
    now = NOW
    owner = Served()
    connection = new_connection(cast(Any, owner), wall=lambda: now)
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    now += 3 * DAY
    connection.handle(request(1), b"")
    assert pop_sent(connection) == [wire.RequestIntroduction(KEY)]
    connection.handle(wire.Introduce(BOB.delegation(not_before=int(now), not_after=int(now) + DAY)), b"")
    assert owner.requests == [1]
    connection.close(0, "enough")


async def test_a_request_of_an_identity_that_has_expired_by_this_clock_is_refused_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked for another introduction once, and again when the clock is set."""
    now = NOW
    owner = Served()
    connection = new_connection(cast(Any, owner), wall=lambda: now)
    shown = wire.Introduce(BOB.delegation())
    connection.handle(shown, b"")
    now += 3 * DAY

    def refuse(_connection: PeerConnection, _blob: bytes) -> Delegation:
        raise DelegationExpired(identity=BOB.key.id52, seconds=5)

    monkeypatch.setattr(owner, "check_introduction", refuse)
    connection.handle(request(1), b"")
    connection.handle(wire.Introduce(BOB.delegation(epoch=2)), b"")
    connection.handle(request(2), b"")
    asked, *refused = pop_sent(connection)
    assert asked == wire.RequestIntroduction(KEY)
    assert [(each.id, each.code) for each in refused if isinstance(each, wire.ErrorReply)] == [
        (1, "delegation-expired"),
        (2, "delegation-expired"),
    ]
    connection.identities.request_refused()
    assert pop_sent(connection) == [wire.RequestIntroduction(KEY)]
    connection.close(0, "enough")


async def test_a_request_whose_introduction_does_not_come_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_exchange, "_AWAIT_SECONDS", 0.01)
    connection = new_connection(cast(Any, Served()))
    connection.introductions.evictions = 1
    connection.handle(request(1), b"")
    assert pop_sent(connection) == [wire.RequestIntroduction(bytes(BOB.key))]

    async def answered() -> list[object]:
        return pop_sent(connection)

    (failure,) = await until_awaited(answered, "it is refused")
    assert isinstance(failure, wire.ErrorReply)
    assert (failure.id, failure.code) == (1, "bad-message")
    connection.close(0, "enough")


async def test_an_identity_that_was_not_withdrawn_is_refused_at_once() -> None:
    connection = new_connection(cast(Any, Served()))
    connection.handle(request(1), b"")
    (failure,) = pop_sent(connection)
    assert isinstance(failure, wire.ErrorReply)
    connection.close(0, "enough")


async def test_requests_that_wait_are_limited_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_exchange, "_MAX_AWAITING", 3)
    monkeypatch.setattr(identity_exchange, "_MAX_AWAITING_BYTES", 100)
    wants = identity_exchange.Wants()
    connection = new_connection(cast(Any, Served()), wants=wants)
    connection.introductions.evictions = 1
    others = [Signer(f"other {number}") for number in range(3)]
    for number, (who, size) in enumerate([(BOB, 60), (BOB, 60), (others[0], 0), (others[1], 40), (others[2], 0)]):
        connection.handle(request(number, who), b"x" * size)
    refused = [each.id for each in pop_sent(connection) if isinstance(each, wire.ErrorReply)]
    assert refused == [1, 4]
    assert wants.awaiting_bytes == 100
    connection.close(0, "enough")
    assert wants.awaiting_bytes == 0
