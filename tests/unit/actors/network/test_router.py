"""Peer router: it finds a connection to a peer when records are old, wrong or missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import CLOCK_SKEW, Delegation, PeerRecord, read_delegation, read_record
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.connections import identity_exchange
from fastn_p2p_actors.network.connections.connection import PeerConnection
from fastn_p2p_actors.network.connections.events import ConnectionEvents
from fastn_p2p_actors.network.connections.identity_exchange import Wants
from fastn_p2p_actors.network.connections.peer_memory import PeerMemory
from fastn_p2p_actors.network.connections.proven_identities import IntroductionRegistry, ProvenIdentities
from fastn_p2p_actors.network.discovery import router
from fastn_p2p_actors.network.discovery.router import PeerRouter
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_actors.network.transport.peer_limits import INTRODUCTIONS
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import FrameDecoder
from fastn_p2p_client.errors import BadMessage, ConnectionLost, P2PError, PeerOffline, PeerUnknown, PeerUnreachable
from fastn_p2p_client.keys import PublicKey
from tests.support.signer import DAY, ENDPOINT, LINEAGE, NOW, Signer

BOB = Signer("bob")
KEY = bytes(BOB.key)
ELSEWHERE = bytes(Signer("another endpoint").key)
Work = Callable[["Neighbourhood"], Coroutine[Any, Any, None]]


class StubConnection:
    """Open connection; ``shows`` says how the peer daemon reacts to a request for an identity."""

    def __init__(self, shows: str = "nothing") -> None:
        self.introductions = ProvenIdentities[Any]()
        self.endpoint = b""
        self.closed = False
        self.asked: list[bytes] = []
        self._shows = shows

    async def request_introduction(self, identity: bytes) -> None:
        self.asked.append(identity)
        if self._shows == "the identity":
            self.introductions.add(read_delegation(BOB.delegation(endpoint=self.endpoint, epoch=9)))
        elif self._shows == "its end":
            self.closed = True
            raise ConnectionLost(what="the connection")
        else:
            await asyncio.Event().wait()


class StubPool:
    def __init__(self, introductions: IntroductionRegistry[Any]) -> None:
        self.own_endpoint = b"o" * 32
        self.introductions = introductions
        self.reached: dict[bytes, StubConnection] = {}
        self.dialled: list[EndpointAddress] = []

    async def connect(self, address: EndpointAddress) -> StubConnection:
        self.dialled.append(address)
        await asyncio.sleep(0)
        if address.endpoint not in self.reached:
            raise PeerUnreachable(peer="endpoint", reason="nobody answers")
        return self.reached[address.endpoint]

    def open_to(self, endpoint: bytes) -> StubConnection | None:
        return self.reached.get(endpoint)

    def has(self, endpoint: bytes, connection: StubConnection) -> StubConnection:
        """Add an open connection."""
        connection.endpoint = endpoint
        connection.introductions = self.introductions.of(endpoint)
        connection.introductions.connection = cast(Any, connection)
        self.reached[endpoint] = connection
        return connection


class Neighbourhood:
    """``PeerRouter`` with a stub pool, and one resolver that returns ``records``."""

    def __init__(self, directory: Path) -> None:
        self.records: list[PeerRecord] = []
        introductions = IntroductionRegistry[Any]()
        self.pool = StubPool(introductions)
        book = self.book = AddressBook(directory, lambda: NOW)
        resolver = SimpleNamespace(
            records_of=lambda key: [each for each in self.records if bytes(each.identity) == key]
        )
        self.routes = PeerRouter(book, [cast(Any, resolver)], lambda: NOW, introductions)
        self.routes.pool = cast(Any, self.pool)

    def know(self, *delegations: bytes) -> None:
        """Add a record with these delegations to the resolver."""
        self.records.append(read_record(BOB.record(delegations=delegations or [BOB.delegation()])))

    async def reach(self) -> StubConnection:
        return cast(StubConnection, await self.routes.connect(KEY, "bob"))

    def has_route(self) -> bool:
        return self.routes.open_to(KEY) is not None


def play(tmp_path: Path, work: Work) -> None:
    async def main() -> None:
        neighbourhood = Neighbourhood(tmp_path)
        async with asyncio.timeout(5):
            await work(neighbourhood)

    asyncio.run(main())


def ended() -> bytes:
    return BOB.delegation(not_before=NOW - 2 * DAY, not_after=NOW - DAY)


def test_a_valid_delegation_needs_no_introduction(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        near.pool.has(ENDPOINT, StubConnection())
        near.know()
        connection = await near.reach()
        assert connection.asked == []
        assert connection.introductions.until == {KEY: NOW + DAY + CLOCK_SKEW}
        assert near.has_route()

    play(tmp_path, work)


def test_an_expired_delegation_needs_an_introduction(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        near.pool.has(ENDPOINT, StubConnection("the identity"))
        near.know(ended())
        connection = await near.reach()
        assert connection.asked == [KEY]
        assert near.has_route()

    play(tmp_path, work)


def test_fails_if_the_endpoint_does_not_introduce_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_PROOF_TIMEOUT", 0.02)

    async def work(near: Neighbourhood) -> None:
        near.pool.has(ENDPOINT, StubConnection())
        near.know(ended())
        with pytest.raises(PeerUnreachable, match="no longer speaks for it"):
            await near.reach()
        assert not near.has_route()

    play(tmp_path, work)


def test_a_proven_identity_is_not_requested_again(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        connection = near.pool.has(ENDPOINT, StubConnection())
        connection.introductions.add(read_delegation(BOB.delegation()))
        near.know(ended())
        assert await near.reach() is connection
        assert connection.asked == []

    play(tmp_path, work)


def test_a_retired_transport_key_needs_a_newer_delegation(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        near.pool.has(ENDPOINT, StubConnection("the identity"))
        near.routes._book.epochs.observe(BOB.key, LINEAGE, 7)
        near.know(BOB.delegation(epoch=3))
        assert (await near.reach()).asked == [KEY]

    play(tmp_path, work)


@pytest.mark.parametrize("before", ["nobody answers", "its end"])
def test_tries_the_next_endpoint_after_a_failure(tmp_path: Path, before: str) -> None:
    async def work(near: Neighbourhood) -> None:
        if before == "its end":
            near.pool.has(ENDPOINT, StubConnection("its end"))
        second = near.pool.has(ELSEWHERE, StubConnection())
        near.know(ended(), BOB.delegation(endpoint=ELSEWHERE, lineage=b"another-lineage-"))
        assert await near.reach() is second
        assert [address.endpoint for address in near.pool.dialled] == [ENDPOINT, ELSEWHERE]

    play(tmp_path, work)


def test_names_the_first_reason_when_every_endpoint_fails(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        near.know(ended(), BOB.delegation(endpoint=ELSEWHERE, lineage=b"another-lineage-"))
        with pytest.raises(PeerUnreachable, match=r"bob cannot be reached: tried .*: nobody answers"):
            await near.reach()

    play(tmp_path, work)


def test_reports_peers_of_the_book_as_connected_or_unreachable(tmp_path: Path) -> None:
    """Nothing is kept of other peers, because strangers could fill it."""

    async def work(near: Neighbourhood) -> None:
        near.know()
        with pytest.raises(PeerUnreachable):
            await near.reach()
        assert near.routes.reach_of(KEY) == ("", 0)  # not in the book
        near.book.add(PublicKey(KEY).id52, "bob")
        with pytest.raises(PeerUnreachable):
            await near.reach()
        assert near.routes.reach_of(KEY) == ("unreachable", 0)
        near.pool.has(ENDPOINT, StubConnection())
        await near.reach()
        assert near.routes.reach_of(KEY) == ("connected", NOW * 1000)
        near.pool.introductions.forget(ENDPOINT)
        near.pool.reached.clear()
        assert near.routes.reach_of(KEY) == ("", NOW * 1000)
        with pytest.raises(PeerUnreachable):
            await near.reach()
        assert near.routes.reach_of(KEY) == ("unreachable", NOW * 1000)

    play(tmp_path, work)


def test_ignores_a_connection_that_ended_before_its_use(tmp_path: Path) -> None:
    """A stale route would let every later call wait until its deadline."""

    async def work(near: Neighbourhood) -> None:
        connection = near.pool.has(ENDPOINT, StubConnection())
        near.know()
        reaching = asyncio.ensure_future(near.reach())
        await asyncio.sleep(0)
        assert near.pool.dialled
        connection.closed = True
        with pytest.raises(PeerUnreachable):
            await reaching
        assert not near.has_route()

    play(tmp_path, work)


def test_fails_for_unknown_peers_and_for_own_identities_that_are_offline(tmp_path: Path) -> None:
    async def work(near: Neighbourhood) -> None:
        with pytest.raises(PeerUnknown):
            await near.reach()
        near.pool.own_endpoint = ENDPOINT
        near.know()
        with pytest.raises(PeerOffline):
            await near.reach()
        assert near.pool.dialled == []

    play(tmp_path, work)


# ── asking an endpoint to show an identity ───────────────────────────────────────────────────────


class StubOwner:
    def check_introduction(self, _connection: PeerConnection, delegation: bytes) -> Delegation:
        from fastn_p2p_actors.credentials import read_delegation

        return read_delegation(delegation)

    def __init__(self, online: dict[bytes, bytes] | None = None) -> None:
        self.online = online if online is not None else {}
        self.introduced: list[bytes] = []

    def introduction_for(self, identity: bytes) -> bytes | None:
        return self.online.get(identity)

    def on_introduced(self, _connection: PeerConnection, identity: bytes) -> None:
        self.introduced.append(identity)

    def on_closed(self, _connection: PeerConnection) -> None:
        """Ignore the end of the connection."""


def new_connection(
    owner: StubOwner | None = None, wall: Callable[[], float] = lambda: NOW, wants: Wants | None = None
) -> PeerConnection:
    raw = SimpleNamespace(
        paths=list, remote_id=lambda: SimpleNamespace(to_bytes=lambda: ENDPOINT), close=lambda _code, _reason: None
    )
    connection = PeerConnection(
        cast(Any, raw),
        cast(ConnectionEvents[PeerConnection], owner or StubOwner()),
        outgoing=True,
        wall=wall,
        memory=PeerMemory(asyncio.get_running_loop()),
    )
    connection.share(ProvenIdentities(), wants or Wants())
    return connection


def said(connection: PeerConnection) -> list[object]:
    frames = [message for message, _ in FrameDecoder().feed(b"".join(connection._channel._queue))]
    connection._channel._queue.clear()
    return list(frames)


async def test_introduces_an_identity_on_request() -> None:
    connection = new_connection()
    waiting = [asyncio.ensure_future(connection.request_introduction(KEY)) for _ in range(2)]
    await asyncio.sleep(0)
    assert said(connection)[0] == wire.RequestIntroduction(KEY)
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    assert await asyncio.gather(*waiting) == [None, None]
    assert connection.introductions.until[KEY] > NOW


async def test_requests_an_introduction_again_after_a_failure() -> None:
    """The identity may have come online meanwhile."""
    connection = new_connection()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await connection.request_introduction(KEY)
    assert said(connection) == [wire.RequestIntroduction(KEY)]
    again = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    assert said(connection) == [wire.RequestIntroduction(KEY)]
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    await again


async def test_the_end_of_the_connection_ends_the_request() -> None:
    connection = new_connection()
    waiting = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    connection.close(0, "enough")
    with pytest.raises(ConnectionLost):
        await waiting
    with pytest.raises(P2PError):
        await connection.request_introduction(KEY)


# ── identities that are not online yet ───────────────────────────────────────────────────────────


async def test_reports_a_repeated_introduction_as_online() -> None:
    owner, now = StubOwner(), NOW
    connection = new_connection(owner, lambda: now)
    shown = wire.Introduce(BOB.delegation())
    connection.handle(shown, b"")
    connection.ask_for(KEY)
    wanting = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    assert owner.introduced == [KEY]
    assert not wanting.done()
    connection.handle(shown, b"")
    await wanting
    assert owner.introduced == [KEY, KEY]
    now += 2 * DAY  # what has ended proves nothing
    connection.handle(shown, b"")
    assert owner.introduced == [KEY, KEY]
    connection.close(0, "enough")


async def test_introduces_a_requested_identity_once_when_it_comes_online() -> None:
    owner = StubOwner()
    wants = Wants()
    connection = new_connection(owner, wants=wants)
    connection.handle(wire.RequestIntroduction(KEY), b"")
    connection.handle(wire.RequestIntroduction(KEY), b"")
    wants.came_online(b"k" * 32)
    assert said(connection) == []
    owner.online[KEY] = BOB.delegation()
    for _ in range(2):
        wants.came_online(KEY)
    assert said(connection) == [wire.Introduce(BOB.delegation())]
    connection.handle(wire.RequestIntroduction(KEY), b"")
    assert said(connection) == [wire.Introduce(BOB.delegation())]
    wants.came_online(KEY)
    assert said(connection) == []


async def test_forgets_the_oldest_of_too_many_requested_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_exchange, "_MAX_WANTS", 2)
    first, second, third = (bytes([number]) * 32 for number in range(3))
    owner = StubOwner()
    wants = Wants()
    connection = new_connection(owner, wants=wants)
    for identity in (first, second, first, third, b"no key", b"k" * 1000):
        connection.handle(wire.RequestIntroduction(identity), b"")
    owner.online = dict.fromkeys((first, second, third), BOB.delegation())
    shown = []
    for identity in owner.online:
        wants.came_online(identity)
        shown.append(len(said(connection)))
    assert shown == [1, 0, 1]


async def test_skips_introductions_above_the_rate_limit_and_requests_them_when_needed() -> None:
    class Counting(StubOwner):
        checks = 0

        def check_introduction(self, connection: PeerConnection, delegation: bytes) -> Delegation:
            self.checks += 1
            raise BadMessage(reason="no delegation")

    owner = Counting()
    connection = new_connection(owner)
    burst = int(INTRODUCTIONS.endpoint.burst)
    for number in range(2 * burst):
        connection.handle(wire.Introduce(number.to_bytes(4, "big")), b"")
    assert burst <= owner.checks < burst * 3 // 2
    said(connection)
    connection.handle(wire.Request(1, KEY, KEY, "Echo", "default", 1000), b"")
    assert said(connection) == [wire.RequestIntroduction(KEY)], "the request waits for it"
