"""Which daemon renews the replicas of an identity: what daemons show each other, and what has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials.owner_statement import read_owner_statement
from fastn_p2p_actors.network.replicas.joined_identities import JoinedIdentities
from fastn_p2p_actors.network.replicas.owned_replicas import OwnedReplicas
from fastn_p2p_actors.network.replicas.owner_exchange import OwnerExchange
from fastn_p2p_actors.network.serving.binding_homes import BindingHomes
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_actors.storage.replica_reports import ReplicaReport
from fastn_p2p_actors.vault.messages import EnrolledReplica, EnrolledReplicas, HomeEntry, ReplicaOwner
from fastn_p2p_client.errors import PeerUnreachable
from fastn_p2p_client.tickets import Ticket
from tests.support.fast_time import run_fast
from tests.support.signer import NOW, Signer

ALICE, MALLORY = Signer("alice"), Signer("mallory")
KEY = bytes(ALICE.key)
OWN, LAPTOP, DESKTOP, FRESH = (bytes([number]) * 32 for number in (1, 2, 3, 4))
OWN_LINEAGE, FRESH_LINEAGE, OTHER_LINEAGE = bytes(16), b"f" * 16, b"z" * 16


def statement(
    generation: int, lineage: bytes = FRESH_LINEAGE, endpoint: bytes = FRESH, signer: Signer = ALICE, key: bytes = KEY
) -> bytes:
    return signer.sign("owner", [1, key, endpoint, lineage, generation, 10, int(NOW), "fresh"])


class Link:
    """Connection with another daemon, and what was sent over it."""

    def __init__(self, endpoint: bytes = FRESH) -> None:
        self.name, self.endpoint, self.supports_owners = "a peer", endpoint, True
        self.sent: list[wire.ShowOwner] = []
        self.send = self.sent.append


class Vault:
    """Vault of an owner's daemon that has enrolled the laptop."""

    def __init__(self) -> None:
        self.owner: ReplicaOwner | None = None
        self.noted: list[bytes] = []

    async def enrolled(self, _: str) -> EnrolledReplicas:
        homes = (HomeEntry("Mail", "default", b"", 3), HomeEntry("Chat", "default", LAPTOP, 4))
        return EnrolledReplicas((EnrolledReplica("laptop", LAPTOP, b"l" * 16, 1),), homes, self.owner)

    async def note_owner(self, name: str, blob: bytes) -> EnrolledReplicas:
        self.noted.append(blob)
        self.owner = ReplicaOwner(blob, read_owner_statement(blob, KEY).lineage == OWN_LINEAGE)
        return await self.enrolled(name)


class World:
    """A daemon, and the others that it can reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault()
        self.links: dict[bytes, Link] = {}
        self.dialled: list[EndpointAddress] = []
        self.known: dict[bytes, EndpointAddress] = {}
        self.homes = BindingHomes()
        self.homes.own = OWN
        self.alice = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        self.alice.record = ALICE.record()
        self.open()

    def open(self) -> None:
        registry = cast(Any, SimpleNamespace(by_key=self.online, by_name=lambda _: None, homes=self.homes))
        known = SimpleNamespace(add_named=lambda _: None)
        book = cast(Any, SimpleNamespace(note_record=lambda *_: True, known=known))
        here = SimpleNamespace(relays=(), addresses=())
        endpoint = cast(Any, SimpleNamespace(id=OWN, address=lambda: here, watch_address=lambda _: None))
        self.owned = OwnedReplicas(
            self.folder / "replicas", cast(Any, self.vault), registry, lambda: float(NOW), cast(Any, {})
        )
        self.owned.renew = self.renew
        self.joined = JoinedIdentities(
            self.folder / "joined", endpoint, self.connect_to_lineage, registry, book, lambda: float(NOW)
        )
        self.exchange = OwnerExchange(self.owned, self.joined, book, self)

    def online(self, key: bytes) -> OnlineIdentity | None:
        return self.alice if key == KEY else None

    async def renew(self, _: OnlineIdentity) -> None:
        """Nobody reads the record."""

    async def connect_to_lineage(self, target: bytes, lineage: bytes) -> Any:
        raise PeerUnreachable(peer="alice", reason="nobody answers")

    async def connect_to_address(self, address: EndpointAddress) -> Any:
        self.dialled.append(address)
        if address.endpoint not in self.links:
            raise PeerUnreachable(peer="alice", reason="nobody answers")
        return self.links[address.endpoint]

    async def addresses_of(self, target: bytes) -> dict[bytes, EndpointAddress]:
        return self.known

    def join(self) -> None:
        self.joined.add("alice", str(Ticket.of_record(ALICE.record())), "desktop")

    @property
    def owner(self) -> str:
        return self.joined.infos()[0].name

    async def show(self, blob: bytes, link: Link | None = None, record: bytes = b"", key: bytes = KEY) -> Link:
        """Show a statement to this daemon, and return the connection once it was handled."""
        link = link or Link()
        before = asyncio.all_tasks()
        self.exchange.on_shown(cast(Any, link), wire.ShowOwner(key, blob, record))
        for task in asyncio.all_tasks() - before:
            await task
        return link


def run(folder: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def run_and_close() -> None:
        world = World(folder)
        try:
            await test(world)
        finally:
            world.exchange.close()
            world.joined.close()
            world.owned.close()

    run_fast(run_and_close())


def test_a_replica_obeys_the_highest_statement_also_after_a_restart(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.join()
        await world.show(statement(5), record=ALICE.record(sequence=2))
        joined = world.joined.find("alice")
        assert joined is not None
        assert (world.owner, joined.saved.lineage) == ("fresh", FRESH_LINEAGE)
        assert joined.saved.record == ALICE.record(sequence=2)
        assert joined.is_due.is_set()
        world.joined.close()
        world.open()
        assert world.owner == "fresh"

    run(tmp_path, test)


def test_an_earlier_statement_moves_no_replica(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.join()
        await world.show(statement(5))
        for blob in (statement(4, OTHER_LINEAGE), statement(0, OTHER_LINEAGE), b""):
            link = await world.show(blob)
            joined = world.joined.find("alice")
            assert joined is not None
            assert joined.saved.lineage == FRESH_LINEAGE
            assert [each.statement for each in link.sent] == [statement(5)]  # who knows less is shown more

    run(tmp_path, test)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_statements_of_one_generation_the_same_one_counts_in_any_order(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    async def test(world: World) -> None:
        world.join()
        both = statement(5, FRESH_LINEAGE), statement(5, OTHER_LINEAGE)
        for number in order:
            await world.show(both[number])
        joined = world.joined.find("alice")
        assert joined is not None
        assert joined.saved.lineage == OTHER_LINEAGE

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("blob", "record"),
    [
        (statement(5, signer=MALLORY), b""),
        (statement(5, signer=MALLORY, key=bytes(MALLORY.key)), b""),
        (b"nothing", b""),
        (statement(5), MALLORY.record()),
        (statement(5), b"nothing"),
    ],
    ids=["another signature", "another identity", "no statement", "another record", "no record"],
)
def test_a_forged_statement_moves_no_replica(tmp_path: Path, blob: bytes, record: bytes) -> None:
    async def test(world: World) -> None:
        world.join()
        link = await world.show(blob, record=record)
        assert (world.owner, link.sent) == ("desktop", [])

    run(tmp_path, test)


def test_a_replica_that_was_removed_stays_so(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.join()
        joined = world.joined.find("alice")
        assert joined is not None
        joined.saved.is_removed = True
        link = await world.show(statement(5))
        assert (world.owner, link.sent) == ("desktop", [])

    run(tmp_path, test)


def test_statements_about_identities_of_others_are_ignored(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        mallory = bytes(MALLORY.key)
        link = await world.show(statement(5, signer=MALLORY, key=mallory), key=mallory)
        assert link.sent == []

    run(tmp_path, test)


def test_a_replica_tells_the_daemon_that_it_leaves(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.join()
        joined = world.joined.find("alice")
        assert joined is not None
        joined.endpoint = DESKTOP
        desktop = world.links[DESKTOP] = Link(DESKTOP)
        await world.show(statement(5))
        assert [each.statement for each in desktop.sent] == [statement(5)]

    run(tmp_path, test)


def test_a_replica_without_its_owner_asks_the_other_daemons_of_the_identity(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.known = {FRESH: EndpointAddress(FRESH, (), ("192.0.2.1:1",))}
        fresh = world.links[FRESH] = Link(FRESH)
        world.join()
        await asyncio.sleep(60)
        assert fresh.sent[0].statement == b""

    run(tmp_path, test)


def test_an_owners_daemon_that_is_replaced_has_no_replicas_and_is_no_home(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.owned.refresh("alice", KEY)
        assert [each.state for each in world.owned.infos(KEY)] == ["new"]
        await world.show(statement(5))
        assert world.vault.noted == [statement(5)]
        assert [each.state for each in world.owned.infos(KEY)] == ["elsewhere"]
        assert "belong to another daemon with its key, fresh since" in world.owned.warnings()[0]
        assert (world.owned.entries(KEY), world.owned.lineages(KEY)) == ({}, frozenset())
        assert {each.protocol: each.endpoint for each in world.homes.of(KEY)} == {"Mail": FRESH, "Chat": LAPTOP}
        link = await world.show(b"")  # a replica that has not heard of it
        assert [each.statement for each in link.sent] == [statement(5)]
        await world.show(statement(4, OTHER_LINEAGE))
        assert world.vault.noted == [statement(5)]

    run(tmp_path, test)


def test_a_daemon_that_adopts_looks_for_replicas_where_the_backup_and_records_say(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        report = ReplicaReport(endpoint=LAPTOP, addresses=("192.0.2.7:1",), seen=5)
        world.owned.restore("alice", KEY, [report])
        world.vault.owner = ReplicaOwner(statement(9, OWN_LINEAGE, OWN), True)
        await world.owned.refresh("alice", KEY)
        assert [each.state for each in world.owned.infos(KEY)] == ["awaited"]
        world.known = {
            LAPTOP: EndpointAddress(LAPTOP, (), ("192.0.2.8:1",)),
            DESKTOP: EndpointAddress(DESKTOP, (), ("192.0.2.9:1",)),
        }
        desktop = world.links[DESKTOP] = Link(DESKTOP)  # the earlier owner's daemon
        world.exchange.open()
        await asyncio.sleep(120)
        assert [each.endpoint for each in world.dialled].count(LAPTOP) > 2
        laptop = world.links[LAPTOP] = Link(LAPTOP)
        await asyncio.sleep(120)
        asked = next(each for each in world.dialled if each.endpoint == LAPTOP)
        assert asked.addresses == ("192.0.2.8:1", "192.0.2.7:1")
        (message,) = laptop.sent[:1]
        assert (message.statement, message.record) == (statement(9, OWN_LINEAGE, OWN), ALICE.record())
        assert [each.statement for each in desktop.sent] == [statement(9, OWN_LINEAGE, OWN)]

    run(tmp_path, test)


def test_a_restored_daemon_that_has_not_adopted_looks_for_nobody(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.owned.restore("alice", KEY, [ReplicaReport(endpoint=LAPTOP, addresses=("192.0.2.7:1",))])
        world.vault.owner = ReplicaOwner(statement(0, FRESH_LINEAGE), False)
        await world.owned.refresh("alice", KEY)
        world.exchange.open()
        await asyncio.sleep(300)
        assert world.dialled == []
        assert "fastn-p2p replica adopt alice" in world.owned.warnings()[0]

    run(tmp_path, test)
