"""A revocation of a known identity is accepted from every peer, ends that identity, and is passed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import signed_revocation as module
from fastn_p2p_actors.network import revocation_exchange
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.connections.connection import PeerConnection
from fastn_p2p_actors.network.connections.pool import ConnectionPool
from fastn_p2p_actors.network.connections.proven_identities import IntroductionRegistry
from fastn_p2p_actors.network.revocation_exchange import RevocationExchange
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import BadSignature, IdentityRevoked, PeerUnreachable
from tests.support.peer_connections import new_connection, pop_sent
from tests.support.signer import NOW, Signer
from tests.support.two_daemons import until

ALICE, BOB, CAROL, EVE = map(Signer, ("alice", "bob", "carol", "eve"))
KEY = bytes(ALICE.key)


class Setup:
    """Exchange of a daemon with bob in its address book, a connection with him, and one source."""

    def __init__(self, folder: Path) -> None:
        self.book = AddressBook(folder, lambda: float(NOW))
        self.book.add(BOB.key.id52, "bob")
        self.registry = Registry()
        self.connections = [new_connection(), new_connection()]
        for each in self.connections:
            each.identities.sends_updates = True
        self.ended: list[object] = []
        self.published: list[tuple[str, bytes, bytes]] = []
        self.offline: list[str] = []
        self.absent: set[bytes] = set()
        """Peers without a connection."""
        self.reported: list[str] = []
        stub: Any = SimpleNamespace(
            introductions=IntroductionRegistry(),
            all=lambda: self.connections,
            remove=lambda key: self.ended.append(("pending", key)),
            fail=lambda key, error: self.ended.append(("wait", key, error.code)),
            identity_ended=self.identity_ended,
            bring_offline=self.bring_offline,
            publish=self.publish,
            record=lambda event, **_: self.reported.append(event),
            open_to=lambda key: None if key in self.absent else self.connections[0],
            connect=self.connect,
        )
        self.exchange = RevocationExchange(
            registry=self.registry,
            book=self.book,
            pending=stub,
            pool=cast(ConnectionPool, stub),
            router=stub,
            sessions=stub,
            publisher=stub,
            waits=stub,
            hosts=SimpleNamespace(publish=lambda _key, blob: self.published.append(("host", blob, b""))),  # type: ignore[arg-type]
            sources=[stub],
            audit=stub,
        )

    async def identity_ended(self, key: bytes, error: IdentityRevoked) -> None:
        self.ended.append(("sessions", key, error.code))

    async def bring_offline(self, identity: OnlineIdentity) -> None:
        self.offline.append(identity.name)
        self.registry.remove_identity(identity)

    async def connect(self, key: bytes, name: str) -> PeerConnection:
        """Connect to bob, and to nobody else."""
        if name != "bob":
            raise PeerUnreachable(peer=name, reason="a test")
        made = new_connection()
        made.identities.sends_updates = True
        self.connections.append(made)
        return made

    def publish(self, identity: Any) -> None:
        self.published.append((identity.name, identity.record, identity.packet))

    def pushed(self) -> list[int]:
        """Return the number of messages over each connection."""
        return [len(pop_sent(each)) for each in self.connections]


@pytest.fixture
async def setup(tmp_path: Path) -> Any:
    made = Setup(tmp_path)
    yield made
    made.exchange.close()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Blobs whose signatures were verified."""
    blobs: list[bytes] = []

    def read(blob: bytes) -> module.Revocation:
        blobs.append(blob)
        return module.read_revocation(blob)

    monkeypatch.setattr(revocation_exchange, "read_revocation", read)
    return iter([blobs])


async def test_stranger_costs_no_signature_and_no_memory(setup: Setup, verified: Iterator[list[bytes]]) -> None:
    checked = next(verified)
    assert not setup.exchange.apply(EVE.revocation(), "mallory")
    assert (checked, len(setup.book.revocations), setup.reported) == ([], 0, [])


async def test_forged_one_changes_nothing(setup: Setup) -> None:
    forged = EVE.sign("revocation", [1, bytes(BOB.key), NOW, bytes(EVE.key)])
    with pytest.raises(BadSignature):
        module.read_revocation(forged)
    for blob in (forged, b"", b"\xff", BOB.record(), BOB.revocation()[:-1]):
        assert not setup.exchange.apply(blob, "mallory")
    assert len(setup.book.revocations) == 0
    assert setup.pushed() == [0, 0]


async def test_known_peer_ends_and_the_first_one_stays(setup: Setup, verified: Iterator[list[bytes]]) -> None:
    checked = next(verified)
    first, second = BOB.revocation(bytes(CAROL.key)), BOB.revocation(bytes(EVE.key))
    assert setup.exchange.apply(first, "a neighbour")
    key = bytes(BOB.key)
    await until(lambda: len(setup.ended) == 3, "the sessions have ended")
    assert setup.ended == [
        ("wait", key, "identity-revoked"),
        ("pending", key),
        ("sessions", key, "identity-revoked"),
    ]
    for again in (first, second):
        assert setup.exchange.apply(again, "mallory")
    assert (checked, setup.reported) == ([first], ["revocation-received"])
    with pytest.raises(IdentityRevoked, match="peer accept-successor bob") as caught:
        setup.book.check_usable(key)
    assert caught.value.successor == CAROL.key.id52
    with pytest.raises(IdentityRevoked):
        setup.book.epochs.observe(BOB.key, b"lineage", 1)


async def test_own_one_goes_to_every_neighbour_and_every_source(setup: Setup) -> None:
    blob = ALICE.revocation()
    await setup.exchange.publish("alice", blob, b"packet")
    assert setup.pushed() == [1, 1]
    assert setup.published == [("host", blob, b""), ("alice", blob, b"packet")]
    setup.exchange.publish_all()
    assert len(setup.published) == 4
    with pytest.raises(IdentityRevoked, match="alice was revoked"):
        setup.book.check_own("alice")


async def test_own_one_is_brought_to_peers_of_the_address_book_that_are_not_connected(setup: Setup) -> None:
    setup.book.add(CAROL.key.id52, "carol")
    setup.absent |= {bytes(BOB.key), bytes(CAROL.key)}
    await setup.exchange.publish("alice", ALICE.revocation(), b"packet")
    await until(lambda: len(setup.connections) == 3, "bob is dialled, and carol does not answer")
    await until(lambda: setup.pushed()[2] == 1, "bob is told")


async def test_own_identity_that_was_revoked_elsewhere_goes_offline(setup: Setup) -> None:
    setup.registry.add_identity(OnlineIdentity("alice", ALICE.key, Sender(0, 0)))
    assert setup.exchange.apply(ALICE.revocation(), "a neighbour")
    await until(lambda: setup.offline == ["alice"], "alice is offline")
    with pytest.raises(IdentityRevoked, match="alice was revoked"):
        setup.book.check_own("alice")
    assert setup.published == [], "this vault has signed no packet"


async def test_known_peer_is_told_once_when_it_is_introduced(setup: Setup) -> None:
    await setup.exchange.publish("alice", ALICE.revocation(), b"packet")
    setup.pushed()
    first = setup.connections[0]
    setup.exchange.on_introduced(first, bytes(EVE.key))
    assert setup.pushed() == [0, 0], "a stranger is told nothing"
    setup.exchange.on_introduced(first, bytes(BOB.key))
    setup.exchange.on_introduced(first, bytes(BOB.key))
    assert setup.pushed() == [1, 0]
    setup.exchange.on_closed(first)
    assert setup.exchange.revocation_of(KEY) == ALICE.revocation()
    assert setup.exchange.revocation_of(bytes(BOB.key)) == b""


async def test_key_is_replaced_in_one_step_and_the_petname_stays(setup: Setup, tmp_path: Path) -> None:
    setup.book.groups.create("friends")
    setup.book.groups.change("friends", [bytes(BOB.key), KEY], [])
    setup.book.add(CAROL.key.id52, "caro")
    setup.book.groups.replace_member(bytes(BOB.key), bytes(CAROL.key))
    assert setup.book.replace_key("bob", CAROL.key).renamed_from == "caro"
    again = AddressBook(tmp_path, lambda: float(NOW))
    again.load()
    assert [(each.name, each.key) for each in again.page("", 10)] == [("bob", CAROL.key)]
    assert list(again.groups.members("friends")) == [bytes(CAROL.key), KEY]
    assert setup.book.by_key(bytes(BOB.key)) is None
