"""Peer router: it finds a connection to a peer when records are old, wrong or missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import CLOCK_SKEW, PeerRecord, read_delegation, read_record
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.connections.proven_identities import IntroductionRegistry, ProvenIdentities
from fastn_p2p_actors.network.discovery import router
from fastn_p2p_actors.network.discovery.router import PeerRouter
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import ConnectionLost, PeerOffline, PeerUnknown, PeerUnreachable
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
