"""Record publisher: how soon a record is published after an address is known, and what is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import EndpointEntry, peek_endpoints, peek_record, read_record
from fastn_p2p_actors.network.discovery import directory_set, record_publisher
from fastn_p2p_actors.network.discovery.record_publisher import RecordPublisher
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Publication
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import DaemonBusy, P2PError, VaultLocked
from tests.support.fast_time import run_fast
from tests.support.no_replicas import NoReplicas
from tests.support.signer import ENDPOINT, NOW, Signer

BOB = Signer("bob")
RELAY = "https://relay.example/"
HOME, CAFE, TRAIN = "192.0.2.1:4433", "198.51.100.7:4433", "203.0.113.9:4433"
ANOTHER = b"\x07" * 32
"""Endpoint of another daemon."""
URL = "http://directory.example/pkarr"


class Directory:
    """Directory that takes every record.

    Attributes:
        taken: time, relays and addresses of each publication.
        present: record of other daemons that is there; empty without one. It is not replaced by one without them.
        lookups: number of searches.
    """

    name = URL

    def __init__(self, client: Any, _wall: Any, _on_newer: Any, on_present: Any) -> None:
        self._on_present = on_present
        self.present = b""
        self.lookups = 0
        self._loop = asyncio.get_running_loop()
        self.taken: list[tuple[float, tuple[str, ...], tuple[str, ...]]] = []
        self.hangs = False
        self.withdrawn = 0

    async def search(self, _key: bytes, _found: Any) -> None:
        self.lookups += 1
        if self.hangs:
            await asyncio.sleep(3600)

    def publish(self, identity: OnlineIdentity) -> None:
        if self.present and self._on_present(identity, self.present):
            return
        relays, addresses = Vault.signed[identity.record]
        self.taken.append((self._loop.time(), relays, addresses))
        identity.publications[URL] = Publication(NOW)

    def unpublish(self, identity: OnlineIdentity) -> None:
        self.withdrawn += bool(identity.packet)

    def close(self) -> None:
        """Nothing to stop."""


class Vault:
    """Vault that signs for bob, unless it has an error for it."""

    signed: dict[bytes, tuple[tuple[str, ...], tuple[str, ...]]] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.error: P2PError | None = None
        self._sequence = 0

    async def packet(self, request: Any) -> Any:
        if self.error is not None:
            raise self.error
        self._sequence += 1
        own = [BOB.delegation(), self._sequence, request.relays, request.addresses]
        others = [[each.delegation, each.sequence, each.relays, each.addresses] for each in request.others]
        record = BOB.record_of_endpoints(own, *others, sequence=self._sequence)
        self.signed[record] = request.relays, request.addresses
        return SimpleNamespace(record=record, body=b"packet %d" % self._sequence)


class Daemon:
    """Publisher of bob's records, with stubs around it."""

    def __init__(self, relays: tuple[str, ...] = (), addresses: tuple[str, ...] = (HOME,)) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_address: Callable[[], object] = lambda: None
        self._now = EndpointAddress(ENDPOINT, relays, addresses)
        self.vault = Vault()
        self.bob = OnlineIdentity("bob", BOB.key, Sender(0, 0))
        finder = SimpleNamespace(sources=[], on_announcement=lambda *_: None)
        hosts = SimpleNamespace(
            publish=lambda *_: None,
            unpublish=lambda _: None,
            problem="",
            signed_records_of=lambda *_, **__: [],
            close=list,
        )
        book = SimpleNamespace(newest_signed_record=lambda _: self.directory.present or None)
        settings = SimpleNamespace(relays=(RELAY,), directories=(URL,), on_change=lambda _: None)
        self.relay_connections = 0
        endpoint = SimpleNamespace(
            id=ENDPOINT,
            address=lambda: self._now,
            watch_address=self._watch,
            relay_connections=lambda: self.relay_connections,
        )
        self.registry = Registry(self.bob)
        self.replicas = NoReplicas()
        self.publisher = RecordPublisher(
            *cast(
                tuple[Any, Any, Any, Any, Any, Any, Any, Any],
                (endpoint, self.vault, self.registry, hosts, book, settings, finder, self.replicas),
            ),
            wall=lambda: NOW,
        )
        self.directory: Directory = finder.sources[0]

    def add_another(self) -> None:
        """Put the record of another daemon of bob's into the directory."""
        entry = [BOB.delegation(endpoint=ANOTHER), 1, ("https://other.example/",), (TRAIN,)]
        self.directory.present = BOB.record_of_endpoints(entry)

    def _watch(self, on_change: Callable[[], object]) -> None:
        self._on_address = on_change

    def move(self, *addresses: str, relays: tuple[str, ...] = (RELAY,)) -> None:
        self._now = EndpointAddress(ENDPOINT, relays, addresses)
        self._on_address()

    async def published(self) -> tuple[float, tuple[str, ...], tuple[str, ...]]:
        """Return the only publication since the last call. Nothing more comes for some time."""
        await asyncio.sleep(50)
        (taken,) = self.directory.taken
        self.directory.taken.clear()
        return taken


class Registry(dict[str, OnlineIdentity]):
    """Registry with one identity."""

    def __init__(self, identity: OnlineIdentity) -> None:
        super().__init__({identity.name: identity})
        self.by_name = self.get
        self.by_key = lambda key: next((each for each in self.values() if each.raw == key), None)

    def __iter__(self) -> Any:
        return iter(self.values())


@pytest.fixture(autouse=True)
def _stub_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_set, "DirectorySource", Directory)
    monkeypatch.setattr(directory_set, "DirectoryClient", lambda url: url)


def scenario(work: Callable[[], Any]) -> Callable[[], None]:
    """Run an async test in a loop whose time passes at once."""

    def test() -> None:
        run_fast(work())

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


@scenario
async def test_the_first_record_waits_for_a_relay() -> None:
    daemon = Daemon()
    await asyncio.sleep(0.9)
    assert not daemon.directory.taken
    daemon.move(HOME, CAFE)
    when, relays, addresses = await daemon.published()
    assert when <= 0.9 + 1.0
    assert (relays, addresses) == ((RELAY,), (HOME, CAFE))
    daemon.publisher.close()


@scenario
async def test_the_first_record_does_not_wait_long_and_the_relay_follows_within_a_second() -> None:
    daemon = Daemon()
    when, relays, _ = await daemon.published()
    assert when <= 2.0
    assert relays == ()
    began = daemon.loop.time()
    daemon.move(HOME)
    when, relays, _ = await daemon.published()
    assert when - began <= 1.0
    assert relays == (RELAY,)
    daemon.publisher.close()


@scenario
async def test_a_new_address_is_published_within_a_second_although_a_directory_does_not_answer() -> None:
    daemon = Daemon((RELAY,))
    await daemon.published()
    daemon.directory.hangs = True
    began = daemon.loop.time()
    daemon.move(CAFE)
    when, _, addresses = await daemon.published()
    assert when - began <= 1.0
    assert addresses == (CAFE,)
    daemon.publisher.close()


@scenario
async def test_addresses_that_come_together_are_published_once() -> None:
    daemon = Daemon((RELAY,))
    await daemon.published()
    began = daemon.loop.time()
    for number in range(3):
        daemon.move(*(CAFE, TRAIN)[:number])
        await asyncio.sleep(0.04)
    when, _, addresses = await daemon.published()
    assert when - began <= 1.0
    assert addresses == (CAFE, TRAIN)
    daemon.publisher.close()


@scenario
async def test_a_change_during_a_publication_is_published_too() -> None:
    daemon = Daemon((RELAY,))
    await daemon.published()
    daemon.directory.hangs = True  # the lookup before the publication takes half a second
    daemon.move(CAFE)
    await asyncio.sleep(0.4)
    began = daemon.loop.time()
    daemon.move(TRAIN)
    await asyncio.sleep(60)
    when = next(when for when, _, addresses in daemon.directory.taken if addresses == (TRAIN,))
    assert when - began <= 1.5, "the publication under way, and the one after it"
    daemon.publisher.close()


@scenario
async def test_a_vault_that_restarts_delays_a_record_by_a_second() -> None:
    daemon = Daemon((RELAY,))
    await daemon.published()
    daemon.vault.error = DaemonBusy(actor="vault")
    began = daemon.loop.time()
    daemon.move(CAFE)
    await asyncio.sleep(5)
    assert not daemon.directory.taken
    daemon.vault.error = None
    when, *_ = await daemon.published()
    assert when - began <= 5 + 1.5
    daemon.publisher.close()


@pytest.mark.parametrize("moved", [True, False])
def test_a_locked_vault_leaves_the_record_of_another_daemon_in_place(
    moved: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Peers would no longer find that daemon. The status says so, the log once, and no directory is asked meanwhile."""

    async def lock_and_unlock() -> None:
        daemon = Daemon((RELAY,))
        await daemon.published()
        daemon.add_another()
        daemon.vault.error = VaultLocked(what="signing")
        if moved:
            daemon.move(CAFE)
        else:
            daemon.directory.publish(daemon.bob)  # the packet that waited until the directory answered
        await asyncio.sleep(60)
        lookups = daemon.directory.lookups
        await asyncio.sleep(600)
        assert not daemon.directory.taken
        assert daemon.directory.lookups == lookups
        publication = daemon.bob.publications[URL]
        assert publication.published == NOW
        assert "fastn-p2p vault unlock" in publication.problem
        daemon.vault.error = None
        unlocked_at = daemon.loop.time()
        await asyncio.sleep(50)
        when, _, addresses = daemon.directory.taken[-1]
        assert when - unlocked_at <= 2.0
        assert addresses == ((CAFE,) if moved else (HOME,))
        assert ANOTHER in {each.delegation.endpoint for each in read_record(daemon.bob.record).endpoints}
        assert not daemon.bob.publications[URL].problem
        daemon.publisher.close()

    run_fast(lock_and_unlock())
    assert caplog.text.count("the vault is locked") == 1


def test_a_locked_vault_is_said_of_every_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those whose record the vault is not asked to sign any more."""
    monkeypatch.setattr(record_publisher, "MOST_RENEWED", 1)

    async def lock() -> None:
        daemon = Daemon((RELAY,))
        await daemon.published()
        alice = daemon.registry["alice"] = OnlineIdentity("alice", Signer("alice").key, Sender(0, 1))
        daemon.vault.error = VaultLocked(what="signing")
        daemon.move(CAFE)
        await asyncio.sleep(60)
        for identity in (daemon.bob, alice):
            assert "fastn-p2p vault unlock" in identity.publications[URL].problem
        daemon.publisher.close()

    run_fast(lock())


@scenario
async def test_records_are_renewed_each_hour() -> None:
    daemon = Daemon((RELAY,))
    await asyncio.sleep(86_400)
    assert 20 <= len(daemon.directory.taken) <= 28
    daemon.publisher.close()


@scenario
async def test_a_relay_that_was_connected_again_may_have_lost_the_directory_too() -> None:
    daemon = Daemon((RELAY,))
    daemon.relay_connections = 1
    await daemon.published()
    await asyncio.sleep(50)
    assert daemon.directory.taken == []
    daemon.relay_connections = 2
    await daemon.published()
    daemon.publisher.close()


@pytest.mark.parametrize("published", [True, False])
def test_a_record_is_said_to_stay_only_where_it_is(published: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def withdraw() -> None:
        daemon = Daemon((RELAY,))
        await daemon.published()
        if not published:
            daemon.bob.publications[URL] = Publication(0.0, "it does not answer")
        daemon.vault.error = DaemonBusy(actor="vault")
        await daemon.publisher.unpublish(daemon.bob)
        assert not daemon.directory.withdrawn
        daemon.publisher.close()

    run_fast(withdraw())
    assert (f"bob stays at {URL} until it expires" in caplog.text) is published


@scenario
async def test_a_replica_publishes_the_last_record_of_its_owner_and_asks_no_vault() -> None:
    daemon = Daemon((RELAY,))
    daemon.vault.error = VaultLocked(what="signing for a replica")
    record = BOB.record_of_endpoints([BOB.delegation(endpoint=ANOTHER), 1, (RELAY,), (TRAIN,)])
    Vault.signed[record] = (RELAY,), (TRAIN,)
    granted: list[OnlineIdentity] = []

    def copy_grant(identity: OnlineIdentity) -> None:
        granted.append(identity)
        identity.record, identity.packet = record, b"packet of the owner"

    daemon.bob.is_joined = True
    daemon.replicas.copy_grant = copy_grant
    _, *published = await daemon.published()
    assert published == [(RELAY,), (TRAIN,)]
    daemon.add_another()  # a newer record is there, of the owner's: the replica has nothing to add to it
    daemon.move(CAFE)
    await daemon.published()
    assert daemon.bob.packet == b"packet of the owner"
    daemon.publisher.close()


@scenario
async def test_the_record_of_an_owner_lists_its_replicas_and_no_removed_one() -> None:
    daemon = Daemon((RELAY,))
    await daemon.published()
    removed = [BOB.delegation(endpoint=ANOTHER, lineage=b"removed replica!"), 1, (RELAY,), (TRAIN,)]
    daemon.directory.present = BOB.record_of_endpoints(removed)
    daemon.replicas.own_lineages = frozenset((b"removed replica!",))
    present = EndpointEntry(BOB.delegation(endpoint=bytes([8]) * 32), 1, (RELAY,), (CAFE,))
    daemon.replicas.own_entries = {bytes([8]) * 32: present}
    daemon.move(CAFE)
    await asyncio.sleep(10)
    assert peek_endpoints(peek_record(daemon.bob.record).endpoints).keys() == {ENDPOINT, bytes([8]) * 32}
    daemon.publisher.close()
