"""Reports of replicas at the daemon that has the key: who gets a grant, and what a hostile daemon gets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.replicas.owned_replicas import AWAY_SECONDS, OwnedReplicas
from fastn_p2p_actors.network.replicas.replica_grant import decode_grant
from fastn_p2p_actors.network.serving.binding_homes import BindingHomes
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, RegisteredBinding
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_actors.vault.messages import EnrolledReplica, EnrolledReplicas, HomeEntry
from fastn_p2p_client.errors import Overloaded, P2PError, VaultLocked
from tests.support.signer import NOW, Signer

pytestmark = pytest.mark.asyncio_loop

ALICE = Signer("alice")
LAPTOP = bytes([1]) * 32
OWN = bytes([2]) * 32
"""Endpoint of the owner's daemon."""
STRANGER = bytes([9]) * 32
LINEAGE = bytes([3]) * 16


class Vault:
    """Vault that has enrolled the laptop."""

    def __init__(self) -> None:
        self.replicas = [EnrolledReplica("laptop", LAPTOP, LINEAGE, 1)]
        self.homes: list[HomeEntry] = []
        self.signed: list[bytes] = []
        self.error: P2PError | None = None

    async def enrolled(self, _: str) -> EnrolledReplicas:
        return EnrolledReplicas(tuple(self.replicas), tuple(self.homes))

    async def claim_home(self, _: str, binding: tuple[str, str], endpoint: bytes) -> EnrolledReplicas:
        if self.error is not None:
            raise self.error
        if binding not in {(each.protocol, each.instance) for each in self.homes}:
            self.homes.append(HomeEntry(*binding, endpoint, len(self.homes) + 1))
        return EnrolledReplicas(tuple(self.replicas), tuple(self.homes))

    async def replica_delegation(self, _: str, endpoint: bytes, retired: bytes = b"") -> Any:
        if self.error is not None:
            raise self.error
        self.signed.append(endpoint)
        return SimpleNamespace(blob=b"delegation %d" % len(self.signed), not_after=int(NOW) + 3600)


class Connection:
    """Connection of a peer daemon, with what it was answered."""

    def __init__(self, endpoint: bytes = LAPTOP, overload: Overloaded | None = None) -> None:
        self.endpoint = endpoint
        self.overload = lambda _: overload
        self.requests = self
        self.answered: asyncio.Queue[Any] = asyncio.Queue()

    def refuse(self, _: int, error: P2PError) -> None:
        self.answered.put_nowait(error.code)

    def answer(self, _: wire.Reply, payload: bytes) -> None:
        self.answered.put_nowait(decode_grant(payload))


class Owner:
    def __init__(self, path: Path) -> None:
        self.now = float(NOW)
        self.vault = Vault()
        self.homes = BindingHomes()
        self.alice = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        self.alice.record, self.alice.packet = b"record", b"packet"
        self.online: OnlineIdentity | None = self.alice
        self.retired: dict[bytes, tuple[bytes, ...]] = {}
        self.renewed = 0
        self.path = path / ".replicas.json"
        self.replicas = self.open()

    def open(self) -> OwnedReplicas:
        self.homes.own = OWN
        registry = SimpleNamespace(by_key=lambda key: self.online if key == self.alice.raw else None, homes=self.homes)
        replicas = OwnedReplicas(self.path, cast(Any, self.vault), cast(Any, registry), lambda: self.now, self.retired)
        replicas.renew = self._renew
        return replicas

    async def _renew(self, _: OnlineIdentity) -> None:
        self.renewed += 1

    async def start(self) -> Owner:
        await self.replicas.refresh("alice", self.alice.raw)
        return self

    async def report(
        self,
        connection: Connection | None = None,
        *,
        identity: bytes = bytes(ALICE.key),
        addresses: tuple[str, ...] = ("192.0.2.1:4000",),
        is_online: bool = True,
        wants_delegation: bool = True,
        bindings: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        connection = connection or Connection()
        message = wire.RenewReplica(1, identity, (), addresses, is_online, wants_delegation, bindings)
        self.replicas.on_renew(cast(Any, connection), message)
        return await connection.answered.get()


async def test_a_replica_gets_a_delegation_and_the_record_and_is_in_the_next_one(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    grant = await owner.report()
    assert (grant.delegation, grant.record, grant.packet) == (b"delegation 1", b"record", b"packet")
    (entry,) = owner.replicas.entries(owner.alice.raw).values()
    assert (entry.delegation, entry.addresses) == (b"delegation 1", ("192.0.2.1:4000",))
    assert owner.renewed == 2  # after the enrolment, and after the report


async def test_a_report_without_news_signs_nothing(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report()
    renewed = owner.renewed
    grant = await owner.report(wants_delegation=False)
    assert (grant.delegation, len(owner.vault.signed), owner.renewed) == (b"", 1, renewed)


async def test_a_stranger_cannot_make_the_vault_sign(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    assert await owner.report(Connection(STRANGER)) == "replica-removed"
    assert await owner.report(Connection(STRANGER), identity=bytes(32)) == "replica-removed"
    assert owner.vault.signed == []


async def test_hostile_reports_are_refused_with_a_type(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    assert await owner.report(identity=b"short") == "bad-message"
    assert await owner.report(addresses=("not an address",)) == "bad-message"
    assert await owner.report(addresses=tuple(f"192.0.2.1:{port}" for port in range(1, 200))) == "bad-message"
    limit = Overloaded(what="news per second", limit=8)
    assert await owner.report(Connection(overload=limit)) == "overloaded"
    assert owner.vault.signed == []


async def test_a_replica_has_one_report_at_a_time(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    first, second = Connection(), Connection()
    for connection in (first, second):
        message = wire.RenewReplica(1, owner.alice.raw, (), (), True, True)
        owner.replicas.on_renew(cast(Any, connection), message)
    assert await second.answered.get() == "overloaded"
    assert (await first.answered.get()).delegation == b"delegation 1"


async def test_nothing_is_granted_while_the_vault_is_locked_or_the_identity_offline(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    owner.vault.error = VaultLocked(what="renewing a replica's delegation")
    assert await owner.report() == "vault-locked"
    owner.vault.error, owner.online = None, None
    assert await owner.report() == "peer-offline"
    owner.online = owner.alice
    assert (await owner.report()).delegation


async def test_a_replica_that_does_not_serve_is_not_in_the_record(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report()
    await owner.report(is_online=False)
    assert owner.replicas.entries(owner.alice.raw) == {}
    assert [each.state for each in owner.replicas.infos(owner.alice.raw)] == ["offline"]


async def test_an_entry_ends_with_its_delegation(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report()
    owner.now += AWAY_SECONDS + 1
    assert [each.state for each in owner.replicas.infos(owner.alice.raw)] == ["away"]
    assert owner.replicas.entries(owner.alice.raw)
    owner.now += 3600
    assert owner.replicas.entries(owner.alice.raw) == {}


async def test_reports_outlive_a_restart(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report()
    before = owner.replicas.entries(owner.alice.raw)
    owner.replicas.close()
    owner.replicas = owner.open()
    owner.online = None
    assert await owner.report() == "peer-offline"  # not removed: its enrolment is not known yet
    owner.online = owner.alice
    await owner.replicas.load(owner.alice)
    assert owner.replicas.entries(owner.alice.raw) == before


async def test_a_removed_replica_is_refused_and_its_entries_elsewhere_do_not_count(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report()
    owner.vault.replicas = [EnrolledReplica("laptop", LAPTOP, LINEAGE, 1, removed=int(NOW))]
    await owner.start()
    assert await owner.report() == "replica-removed"
    assert owner.replicas.entries(owner.alice.raw) == {}
    assert owner.replicas.lineages(owner.alice.raw) == {LINEAGE}
    assert owner.retired == {}


async def test_a_replica_that_was_removed_at_once_is_retired_at_every_peer(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    told: list[bytes] = []
    owner.replicas.on_changed = told.append
    owner.vault.replicas = [EnrolledReplica("laptop", LAPTOP, LINEAGE, 1, removed=int(NOW), at_once=True)]
    await owner.start()
    assert owner.retired == {owner.alice.raw: (b"delegation 1",)}
    assert told == [owner.alice.raw]


# ── homes of bindings ────────────────────────────────────────────────────────────────────────────

MAIL = "Mail", "default"


def add_mail(owner: Owner) -> None:
    """Have the owner's daemon serve Mail, too."""
    access = cast(Any, SimpleNamespace(allow=("everyone",)))
    owner.alice.bindings[MAIL] = RegisteredBinding(owner.alice, *MAIL, access)
    owner.homes.note("alice", *MAIL, keeps_state=True)


async def test_the_daemon_that_reports_a_binding_first_is_its_home(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    (home,) = (await owner.report(bindings=(MAIL,))).homes
    assert (home.protocol, home.instance, home.endpoint, home.daemon) == (*MAIL, LAPTOP, "laptop")
    add_mail(owner)
    await owner.replicas.claim_homes(owner.alice)
    away = owner.homes.elsewhere(owner.alice.bindings[MAIL])
    assert away is not None
    assert (away.daemon, away.endpoint, away.term) == ("laptop", LAPTOP.hex(), home.term)
    assert [each.homes for each in owner.replicas.infos(owner.alice.raw)] == [["Mail/default"]]


async def test_what_the_owner_serves_is_its_own_and_no_report_changes_that(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    add_mail(owner)
    await owner.start()
    (home,) = (await owner.report(bindings=(MAIL,) * 100)).homes
    assert (home.endpoint, home.daemon) == (OWN, "")
    assert owner.homes.elsewhere(owner.alice.bindings[MAIL]) is None
    assert (await owner.report(bindings=(MAIL,))).homes == (home,)


async def test_without_the_vault_a_binding_has_no_home_and_is_not_served(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    add_mail(owner)
    owner.vault.error = VaultLocked(what="it")
    await owner.replicas.claim_homes(owner.alice)
    away = owner.homes.elsewhere(owner.alice.bindings[MAIL])
    assert away is not None
    assert (away.daemon, away.endpoint) == ("not chosen yet", "")
    owner.vault.error = None
    await owner.replicas.claim_homes(owner.alice)
    assert owner.homes.elsewhere(owner.alice.bindings[MAIL]) is None


async def test_a_restarted_owner_serves_nothing_before_its_vault_has_told_the_homes(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report(bindings=(MAIL,))
    owner.replicas.close()
    owner.homes = BindingHomes()
    owner.replicas = owner.open()
    add_mail(owner)
    assert owner.homes.elsewhere(owner.alice.bindings[MAIL]) is not None
    await owner.replicas.load(owner.alice)
    away = owner.homes.elsewhere(owner.alice.bindings[MAIL])
    assert away is not None
    assert away.daemon == "laptop"


async def test_a_damaged_file_removes_no_replica(tmp_path: Path) -> None:
    """A replica that is told to be removed serves no more."""
    owner = await Owner(tmp_path).start()
    owner.replicas.close()
    owner.path.write_bytes(b"damaged")
    owner.replicas = owner.open()
    assert await owner.report() == "peer-offline"
    assert owner.replicas.warnings()
    await owner.replicas.load(owner.alice)
    assert (await owner.report()).delegation == b"delegation 1"
    assert await owner.report(Connection(STRANGER)) == "replica-removed"


async def test_an_identity_without_replicas_serves_everything_here(tmp_path: Path) -> None:
    owner = await Owner(tmp_path).start()
    await owner.report(bindings=(MAIL,))
    add_mail(owner)
    owner.vault.replicas = [EnrolledReplica("laptop", LAPTOP, LINEAGE, 1, removed=int(NOW))]
    await owner.start()
    assert not owner.homes
    assert owner.homes.elsewhere(owner.alice.bindings[MAIL]) is None
