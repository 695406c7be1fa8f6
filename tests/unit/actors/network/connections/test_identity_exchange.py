"""Identity exchange of a connection: introductions on request, and news of local identities."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import Delegation, read_delegation
from fastn_p2p_actors.network.connections import identity_exchange
from fastn_p2p_actors.network.connections.connection import PeerConnection
from fastn_p2p_actors.network.connections.identity_exchange import Wants
from fastn_p2p_actors.network.connections.proven_identities import ProvenIdentities
from fastn_p2p_actors.network.transport.peer_limits import INTRODUCTIONS, NEWS
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    DelegationExpired,
    IdentityRevoked,
    Overloaded,
    P2PError,
    PeerOffline,
    WrongEndpoint,
)
from tests.support.peer_connections import StubOwner, new_connection, pop_sent
from tests.support.signer import DAY, NOW, Signer

BOB = Signer("bob")
KEY = bytes(BOB.key)


# ── a further connection ───────────────────────────────────────────────────────────────────────────


def further_connections(owner: StubOwner, *, known: bool = True) -> tuple[PeerConnection, PeerConnection]:
    """Return an earlier and a later connection with a daemon through which a known peer speaks, or only a stranger."""
    introductions: ProvenIdentities[PeerConnection] = ProvenIdentities()
    introductions.until[KEY] = NOW + DAY
    if not known:
        introductions.strangers[KEY] = None
    earlier, later = new_connection(owner), new_connection(owner)
    for connection in (earlier, later):
        connection.share(introductions, Wants())
        connection.identities.sends_updates = True
    return earlier, later


async def test_nothing_is_sent_again_to_strangers() -> None:
    """For each connection that they open, they could have much sent. A request is still preceded by its source."""
    alice = b"a" * 32
    owner = StubOwner({alice: b"delegation of alice"})
    owner.newest_records = {alice: b"new record"}
    earlier, later = further_connections(owner, known=False)
    earlier.identities.on_request(alice)
    later.identities.repeat(earlier.identities)
    assert pop_sent(later) == []
    assert later.identities.pending_introduction(alice) == wire.Introduce(b"delegation of alice")


async def test_identities_and_records_are_sent_again_over_a_further_connection() -> None:
    """The record that was pushed over the earlier one may never have arrived."""
    alice, carol = b"a" * 32, b"c" * 32
    owner = StubOwner({alice: b"delegation of alice", carol: b"delegation of carol"})
    earlier, later = further_connections(owner)
    for identity in (alice, carol):
        earlier.identities.on_request(identity)
    later.identities.on_request(carol)
    pop_sent(later)
    owner.newest_records = {alice: b"new record"}
    later.identities.repeat(earlier.identities)
    assert pop_sent(later) == [wire.Introduce(b"delegation of alice"), wire.PushRecord(b"new record")]
    earlier.identities.on_request(b"g" * 32)
    later.identities.repeat(earlier.identities)
    assert pop_sent(later) == [], "each is sent once"


async def test_few_identities_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_exchange, "_MAX_REPEATED", 2)
    keys = [bytes([number]) * 32 for number in range(4)]
    owner = StubOwner({key: key for key in keys})
    earlier, later = further_connections(owner)
    for key in keys:
        earlier.identities.on_request(key)
    later.identities.repeat(earlier.identities)
    assert pop_sent(later) == [wire.Introduce(key) for key in keys[2:]], "those that were shown last"


# ── asking an endpoint to show an identity ─────────────────────────────────────────────────────────


async def test_introduces_an_identity_on_request() -> None:
    connection = new_connection()
    waiting = [asyncio.ensure_future(connection.request_introduction(KEY)) for _ in range(2)]
    await asyncio.sleep(0)
    assert pop_sent(connection)[0] == wire.RequestIntroduction(KEY)
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    assert await asyncio.gather(*waiting) == [None, None]
    assert connection.introductions.until[KEY] > NOW


async def test_requests_an_introduction_again_after_a_failure() -> None:
    """The identity may have come online meanwhile."""
    connection = new_connection()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await connection.request_introduction(KEY)
    assert pop_sent(connection) == [wire.RequestIntroduction(KEY)]
    again = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    assert pop_sent(connection) == [wire.RequestIntroduction(KEY)]
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


async def test_each_identity_hears_why_its_own_introduction_was_refused() -> None:
    """Several identities share a connection."""
    owner, alice, carol = StubOwner(), Signer("alice"), Signer("carol")
    errors = {
        KEY: DelegationExpired(identity=BOB.key.id52, seconds=5),
        bytes(alice.key): WrongEndpoint(identity=alice.key.id52),
    }

    def refuse(_connection: PeerConnection, blob: bytes) -> Delegation:
        raise errors[read_delegation(blob).identity]

    cast(Any, owner).check_introduction = refuse
    connection = new_connection(owner)
    for signer in (BOB, alice):
        connection.handle(wire.Introduce(signer.delegation()), b"")

    def reason(key: bytes) -> P2PError:
        with pytest.raises(P2PError) as raised:
            connection.identities.check(key)
        return raised.value

    assert {key: reason(key) for key in errors} == errors
    assert "not been introduced" in str(reason(bytes(carol.key)))
    connection.handle(wire.Introduce(b"cut off"), b"")
    assert "cannot be read" in str(reason(bytes(carol.key)))
    assert reason(KEY) is errors[KEY]
    connection.introductions.add(read_delegation(BOB.delegation()))
    connection.identities.check(KEY)


async def test_reasons_are_kept_for_some_identities_only() -> None:
    connection = new_connection()
    for number in range(1000):
        connection.introductions.reject(number.to_bytes(32, "big"), Overloaded(what="introductions", limit=number))
    last = connection.introductions.rejection_of((999).to_bytes(32, "big"), NOW)
    assert isinstance(last, Overloaded)
    assert connection.introductions.rejection_of(bytes(32), NOW).code == "bad-message"


# ── identities that are not online yet ─────────────────────────────────────────────────────────────


async def test_reports_a_repeated_introduction_as_online() -> None:
    owner, now = StubOwner(), NOW
    connection = new_connection(owner, lambda: now)
    shown = wire.Introduce(BOB.delegation())
    connection.handle(shown, b"")
    connection.send_introduction_request(KEY)
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
    assert pop_sent(connection) == []
    owner.online[KEY] = BOB.delegation()
    for _ in range(2):
        wants.came_online(KEY)
    assert pop_sent(connection) == [wire.Introduce(BOB.delegation())]
    connection.handle(wire.RequestIntroduction(KEY), b"")
    assert pop_sent(connection) == [wire.Introduce(BOB.delegation())]
    wants.came_online(KEY)
    assert pop_sent(connection) == []


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
        shown.append(len(pop_sent(connection)))
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
    pop_sent(connection)
    connection.handle(wire.Request(1, KEY, KEY, "Echo", "default", 1000), b"")
    assert pop_sent(connection) == [wire.RequestIntroduction(KEY)], "the request waits for it"


# ── news of local identities ───────────────────────────────────────────────────────────────────────


def hello(*, news: bool) -> wire.Hello:
    return wire.Hello(wire.WIRE_VERSION, b"process!", 1000, 10, news=news)


class NewsOwner(StubOwner):
    def on_hello(self, _connection: PeerConnection) -> None:
        """Ignore it."""


def knows_bob(connection: PeerConnection) -> None:
    """The peer daemon has asked for bob."""
    connection.handle(wire.RequestIntroduction(KEY), b"")
    pop_sent(connection)


async def test_pushes_a_new_record_to_daemons_that_know_the_identity_or_wait_for_it() -> None:
    wants = Wants()
    online = NewsOwner({KEY: BOB.delegation()})
    shown, waiting, other = (new_connection(owner, wants=wants) for owner in (online, NewsOwner(), online))
    for connection in (shown, waiting, other):
        connection.handle(hello(news=True), b"")
    knows_bob(shown)
    knows_bob(waiting)
    wants.push_record(KEY, b"record")
    assert [pop_sent(each) for each in (shown, waiting, other)] == [
        [wire.PushRecord(b"record")],
        [wire.PushRecord(b"record")],
        [],
    ]
    shown.close(0, "enough")
    wants.push_record(KEY, b"record")
    assert len(pop_sent(waiting)) == 1


async def test_withdraws_an_identity_that_goes_offline_and_shows_it_again_when_it_is_back() -> None:
    wants, owner = Wants(), NewsOwner({KEY: BOB.delegation()})
    connection = new_connection(owner, wants=wants)
    connection.handle(hello(news=True), b"")
    knows_bob(connection)
    owner.online.clear()
    for _ in range(2):
        wants.went_offline(KEY)
    assert pop_sent(connection) == [wire.IdentityOffline(KEY)]
    owner.online[KEY] = BOB.delegation()
    wants.came_online(KEY)
    assert pop_sent(connection) == [wire.Introduce(BOB.delegation())]
    wants.went_offline(KEY)
    assert pop_sent(connection) == [wire.IdentityOffline(KEY)]


async def test_says_that_an_identity_is_offline_unless_it_may_be_about_to_come_online() -> None:
    owner = NewsOwner()
    connection = new_connection(owner)
    connection.handle(hello(news=True), b"")
    connection.handle(wire.RequestIntroduction(KEY), b"")
    assert pop_sent(connection) == [wire.IdentityOffline(KEY)]
    owner.is_starting = True
    connection.handle(wire.RequestIntroduction(KEY), b"")
    assert pop_sent(connection) == []


async def test_an_identity_that_was_asked_for_is_offline() -> None:
    connection = new_connection()
    waiting = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    connection.handle(wire.IdentityOffline(KEY), b"")
    with pytest.raises(PeerOffline) as offline:
        await waiting
    assert offline.value.peer == BOB.key.id52


async def test_a_daemon_that_does_not_understand_news_gets_none() -> None:
    wants = Wants()
    connection = new_connection(NewsOwner({KEY: BOB.delegation()}), wants=wants)
    connection.handle(hello(news=False), b"")
    knows_bob(connection)
    wants.push_record(KEY, b"record")
    wants.went_offline(KEY)
    assert pop_sent(connection) == []


async def test_a_withdrawn_identity_is_not_proven_until_it_is_shown_again() -> None:
    owner = NewsOwner()
    connection = new_connection(owner)
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    for _ in range(2):
        connection.handle(wire.IdentityOffline(KEY), b"")
    connection.handle(wire.IdentityOffline(b"no key"), b"")
    assert not connection.introductions.is_proven(KEY, NOW)
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    assert connection.introductions.is_proven(KEY, NOW)
    assert owner.introduced == [KEY, KEY]


async def test_drops_news_above_the_rate_limit() -> None:
    class Counting(NewsOwner):
        records = 0

        def on_pushed_record(self, _connection: PeerConnection, _record: bytes) -> None:
            self.records += 1

    owner = Counting()
    connection = new_connection(owner)
    burst = int(NEWS.endpoint.burst)
    for _ in range(3 * burst):
        connection.handle(wire.PushRecord(b"record"), b"")
    assert burst <= owner.records < 2 * burst
    assert not connection.closed


# ── revoked identities ────────────────────────────────────────────────────────────────────────────


async def test_answers_a_request_for_a_revoked_identity_with_its_revocation() -> None:
    owner = StubOwner()
    owner.revoked[KEY] = b"revocation"
    connection = new_connection(owner)
    connection.identities.sends_updates = True
    connection.handle(wire.RequestIntroduction(KEY), b"")
    assert pop_sent(connection) == [wire.PushRecord(b"revocation")]


async def test_tells_a_daemon_that_introduces_a_revoked_identity() -> None:
    """Another daemon of the same owner may not have heard of it."""
    owner = StubOwner()
    owner.revoked[KEY] = b"revocation"
    connection = new_connection(owner)
    connection.identities.sends_updates = True
    error = IdentityRevoked(identity=BOB.key.id52, revoked="2026-01-31T12:00:00Z", successor="")

    def refuse(*_: object) -> Delegation:
        raise error

    owner.check_introduction = refuse  # type: ignore[method-assign, assignment]
    connection.handle(wire.Introduce(BOB.delegation()), b"")
    assert pop_sent(connection) == [wire.PushRecord(b"revocation")]
    assert connection.introductions.rejection_of(KEY, NOW) is error
    assert KEY not in connection.introductions.until


async def test_revocation_ends_what_waits_for_an_introduction() -> None:
    connection = new_connection()
    waiting = asyncio.ensure_future(connection.request_introduction(KEY))
    await asyncio.sleep(0)
    error = IdentityRevoked(identity="bob", revoked="2026-01-31T12:00:00Z", successor="")
    connection.identities.on_revoked(KEY, error, error)
    with pytest.raises(IdentityRevoked):
        await waiting
