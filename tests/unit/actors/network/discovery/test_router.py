"""Peer router: it finds a connection to a peer when records are old, wrong or missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import CLOCK_SKEW, PeerRecord, read_delegation, read_record
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.connections.proven_identities import IntroductionRegistry, ProvenIdentities
from fastn_p2p_actors.network.discovery import router
from fastn_p2p_actors.network.discovery.record_finder import RecordFinder
from fastn_p2p_actors.network.discovery.router import PeerRouter
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import ConnectionLost, InternalError, PeerOffline, PeerUnknown, PeerUnreachable
from fastn_p2p_client.keys import PublicKey
from tests.support.signer import DAY, ENDPOINT, LINEAGE, NOW, Signer

BOB = Signer("bob")
KEY = bytes(BOB.key)
ELSEWHERE = bytes(Signer("another endpoint").key)


class StubConnection:
    """Open connection; ``shows`` says how the peer daemon reacts to a request for an identity."""

    def __init__(self, shows: str = "nothing") -> None:
        self.introductions = ProvenIdentities[Any]()
        self.endpoint = b""
        self.closed = False
        self.is_silent = False
        self.asked: list[bytes] = []
        self.sent: list[object] = []
        self._shows = shows

    def send(self, message: object) -> None:
        self.sent.append(message)

    async def request_introduction(self, identity: bytes) -> None:
        self.asked.append(identity)
        if self._shows == "the identity":
            self.introductions.add(read_delegation(BOB.delegation(endpoint=self.endpoint, epoch=9)))
        elif self._shows == "that it is offline":
            raise PeerOffline(peer="bob")
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
        self.was_dialled = asyncio.Event()

    async def connect(self, address: EndpointAddress) -> StubConnection:
        self.dialled.append(address)
        self.was_dialled.set()
        await asyncio.sleep(0)
        if address.endpoint not in self.reached:
            raise PeerUnreachable(peer="endpoint", reason="nobody answers")
        return self.reached[address.endpoint]

    def has_network(self) -> bool:
        return True

    def open_to(self, endpoint: bytes) -> StubConnection | None:
        return self.reached.get(endpoint)

    def has(self, endpoint: bytes, connection: StubConnection) -> StubConnection:
        """Add an open connection."""
        connection.endpoint = endpoint
        connection.introductions = self.introductions.of(endpoint)
        connection.introductions.connection = cast(Any, connection)
        self.reached[endpoint] = connection
        return connection


class StubNetwork:
    """``PeerRouter`` with a stub pool, and one resolver that returns ``records``."""

    def __init__(self, directory: Path) -> None:
        self.records: list[PeerRecord] = []
        introductions = IntroductionRegistry[Any]()
        self.pool = StubPool(introductions)
        book = self.book = AddressBook(directory, lambda: NOW)
        resolver = SimpleNamespace(
            records_of=lambda key: [each for each in self.records if bytes(each.identity) == key]
        )
        finder = self.finder = RecordFinder(book, lambda: NOW)
        self.routes = PeerRouter(book, [cast(Any, resolver)], lambda: NOW, introductions, finder)
        self.routes.pool = cast(Any, self.pool)

    def know(self, *delegations: bytes) -> None:
        """Add a record with these delegations to the resolver."""
        self.records.append(read_record(BOB.record(delegations=delegations or [BOB.delegation()])))

    async def reach(self) -> StubConnection:
        return cast(StubConnection, await self.routes.connect(KEY, "bob"))

    def has_route(self) -> bool:
        return self.routes.open_to(KEY) is not None


@pytest.fixture
async def network(tmp_path: Path) -> StubNetwork:
    return StubNetwork(tmp_path)


def ended() -> bytes:
    return BOB.delegation(not_before=NOW - 2 * DAY, not_after=NOW - DAY)


async def test_a_valid_delegation_needs_no_introduction(network: StubNetwork) -> None:
    network.pool.has(ENDPOINT, StubConnection())
    network.know()
    connection = await network.reach()
    assert connection.asked == []
    assert connection.introductions.until == {KEY: NOW + DAY + CLOCK_SKEW}
    assert network.has_route()


async def test_an_expired_delegation_needs_an_introduction(network: StubNetwork) -> None:
    network.pool.has(ENDPOINT, StubConnection("the identity"))
    network.know(ended())
    connection = await network.reach()
    assert connection.asked == [KEY]
    assert network.has_route()


@pytest.mark.parametrize("shows", ["nothing", "that it is offline"])
async def test_an_endpoint_that_does_not_introduce_the_identity(
    network: StubNetwork, monkeypatch: pytest.MonkeyPatch, shows: str
) -> None:
    """The peer's daemon answers: the identity is offline there, or has moved. An older daemon says nothing about it."""
    monkeypatch.setattr(router, "_PROOF_TIMEOUT", 0.02 if shows == "nothing" else 60.0)
    connection = network.pool.has(ENDPOINT, StubConnection(shows))
    network.know(ended())
    with pytest.raises(PeerOffline):
        await network.reach()
    assert not network.has_route()
    network.know(BOB.delegation(endpoint=ELSEWHERE, lineage=b"another-lineage-"))
    with pytest.raises(PeerUnreachable, match=r"not online there; .*nobody answers"):
        await network.reach()
    if shows == "nothing":
        connection.is_silent = True
        network.records.pop()
        with pytest.raises(PeerUnreachable, match="does not answer any more"):
            await network.reach()


async def test_only_attempts_decide_the_error(network: StubNetwork) -> None:
    """A record that is published after the last look is no failed attempt."""
    connection = network.pool.has(ENDPOINT, StubConnection())
    connection.introductions.add(read_delegation(BOB.delegation()))
    connection.introductions.remove_offline(KEY)

    def lookup(key: bytes) -> Any:
        done = network.finder.look_up(key)
        looked = network.routes.known

        def once(*_: object) -> list[Any]:
            network.routes.known = looked  # type: ignore[method-assign]
            network.know()
            return []

        network.routes.known = once  # type: ignore[method-assign, assignment]
        return done

    network.routes._finder = cast(Any, SimpleNamespace(look_up=lookup))
    with pytest.raises(PeerOffline):
        await network.reach()
    assert await network.reach() is connection


async def test_a_proven_identity_is_not_requested_again(network: StubNetwork) -> None:
    connection = network.pool.has(ENDPOINT, StubConnection())
    connection.introductions.add(read_delegation(BOB.delegation()))
    network.know(ended())
    assert await network.reach() is connection
    assert connection.asked == []


async def test_a_retired_transport_key_needs_a_newer_delegation(network: StubNetwork) -> None:
    network.pool.has(ENDPOINT, StubConnection("the identity"))
    network.routes._book.epochs.observe(BOB.key, LINEAGE, 7)
    network.know(BOB.delegation(epoch=3))
    assert (await network.reach()).asked == [KEY]


@pytest.mark.parametrize("before", ["nobody answers", "its end"])
async def test_tries_the_next_endpoint_after_a_failure(network: StubNetwork, before: str) -> None:
    if before == "its end":
        network.pool.has(ENDPOINT, StubConnection("its end"))
    second = network.pool.has(ELSEWHERE, StubConnection())
    network.know(ended(), BOB.delegation(endpoint=ELSEWHERE, lineage=b"another-lineage-"))
    assert await network.reach() is second
    assert [address.endpoint for address in network.pool.dialled] == [ENDPOINT, ELSEWHERE]


async def test_names_the_first_reason_when_every_endpoint_fails(network: StubNetwork) -> None:
    network.know(ended(), BOB.delegation(endpoint=ELSEWHERE, lineage=b"another-lineage-"))
    with pytest.raises(PeerUnreachable, match=r"bob cannot be reached: tried .*: nobody answers"):
        await network.reach()


async def test_reports_peers_of_the_book_as_connected_or_unreachable(network: StubNetwork) -> None:
    """No state of other peers is kept, because strangers could fill it."""
    network.know()
    with pytest.raises(PeerUnreachable):
        await network.reach()
    assert network.routes.reach_of(KEY) == ("", 0)  # not in the book
    network.book.add(PublicKey(KEY).id52, "bob")
    with pytest.raises(PeerUnreachable):
        await network.reach()
    assert network.routes.reach_of(KEY) == ("unreachable", 0)
    network.pool.has(ENDPOINT, StubConnection())
    await network.reach()
    assert network.routes.reach_of(KEY) == ("connected", NOW * 1000)
    network.pool.introductions.remove(ENDPOINT)
    network.pool.reached.clear()
    assert network.routes.reach_of(KEY) == ("", NOW * 1000)
    with pytest.raises(PeerUnreachable):
        await network.reach()
    assert network.routes.reach_of(KEY) == ("unreachable", NOW * 1000)


async def test_ignores_a_connection_that_ended_before_its_use(network: StubNetwork) -> None:
    """A stale route would let every later call wait until its deadline."""
    connection = network.pool.has(ENDPOINT, StubConnection())
    network.know()
    reaching = asyncio.ensure_future(network.reach())
    await network.pool.was_dialled.wait()
    connection.closed = True
    with pytest.raises(PeerUnreachable):
        await reaching
    assert not network.has_route()


async def test_an_unknown_peer_ends_with_each_source_and_its_answer(network: StubNetwork) -> None:
    async def has_nothing(_key: bytes, _found: object) -> None: ...

    async def is_down(_key: bytes, _found: object) -> None:
        raise InternalError(reason="it is down")

    finder = network.routes._finder
    finder.sources = [
        cast(Any, SimpleNamespace(name="LAN", search=has_nothing)),
        cast(Any, SimpleNamespace(name="http://one.example", search=is_down)),
    ]
    finder.unused = lambda: {"directories": "off in network mode lan"}
    with pytest.raises(PeerUnknown) as unknown:
        await network.routes.connect(KEY, BOB.key.id52)
    assert "asked LAN (it does not know the peer), http://one.example (" in str(unknown.value)
    assert "it is down" in str(unknown.value)
    assert "not asked: directories (off in network mode lan)" in str(unknown.value)
    assert unknown.value.fields() == {"peer": BOB.key.id52}, "an older client takes no other field"


async def test_fails_for_unknown_peers_and_for_own_identities_that_are_offline(network: StubNetwork) -> None:
    with pytest.raises(PeerUnknown):
        await network.reach()
    network.pool.own_endpoint = ENDPOINT
    network.know()
    with pytest.raises(PeerOffline):
        await network.reach()
    assert network.pool.dialled == []
