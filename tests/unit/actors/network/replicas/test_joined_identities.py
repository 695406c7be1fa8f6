"""Identities that are replicas here: what their owner's daemon may send, and what happens without it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.replicas.joined_identities import JoinedIdentities
from fastn_p2p_actors.network.replicas.replica_grant import ReplicaGrant
from fastn_p2p_actors.network.serving.binding_homes import BindingHomes
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import ConnectionLost, OwnerAway, P2PError, PeerUnreachable, ReplicaRemoved
from fastn_p2p_client.tickets import Ticket
from tests.support.fast_time import run_fast
from tests.support.signer import ENDPOINT, NOW, Signer

ALICE, MALLORY = Signer("alice"), Signer("mallory")
OWN = bytes([5]) * 32
"""Endpoint of the replica."""


class OwnerDaemon:
    """Daemon of alice's owner: answers reports, unless it has an error for them."""

    closed = False
    endpoint = ENDPOINT
    supports_replicas = True

    def __init__(self) -> None:
        self.requests = self
        self.reports: list[wire.RenewReplica] = []
        self.error: P2PError | None = None
        self.is_away = False
        self.grant: Any = ReplicaGrant(ALICE.delegation(endpoint=OWN), ALICE.record(), b"packet")

    async def connect(self, _identity: bytes, _lineage: bytes) -> OwnerDaemon:
        if self.is_away:
            raise PeerUnreachable(peer=ALICE.key.id52, reason="no answer")
        return self

    def next_number(self) -> int:
        return len(self.reports) + 1

    def renew_replica(self, waiting: Any, message: wire.RenewReplica) -> None:
        self.reports.append(message)
        if self.error is not None:
            waiting.on_error(self.error)
        else:
            waiting.on_reply(self.grant if isinstance(self.grant, bytes) else msgspec.msgpack.encode(self.grant))

    def cancel(self, _: int) -> None:
        """Nothing waits."""


class Replica:
    def __init__(self, path: Path) -> None:
        self.now = float(NOW)
        self.boot = 1000.0
        self.homes = BindingHomes()
        self.homes.own = OWN
        self.owner = OwnerDaemon()
        self.online: OnlineIdentity | None = None
        self.granted: list[OnlineIdentity] = []
        self.removed: list[OnlineIdentity] = []
        self.path = path / ".joined.json"
        self.joined = self.open()

    def open(self) -> JoinedIdentities:
        joined = JoinedIdentities(
            self.path,
            cast(
                Any,
                SimpleNamespace(
                    id=OWN, address=lambda: SimpleNamespace(relays=(), addresses=()), watch_address=lambda _: None
                ),
            ),
            cast(Any, self.owner.connect),
            cast(Any, SimpleNamespace(by_name=lambda _: self.online, homes=self.homes)),
            cast(Any, SimpleNamespace(note_record=lambda *_: True, known=SimpleNamespace(add_named=lambda _: None))),
            lambda: self.now,
            lambda: self.boot,
        )
        joined.on_granted, joined.on_removed = self._on_granted, self._on_removed
        joined.open()
        return joined

    async def _on_granted(self, identity: OnlineIdentity) -> None:
        self.granted.append(identity)

    async def _on_removed(self, identity: OnlineIdentity) -> None:
        self.removed.append(identity)

    def join(self) -> None:
        self.joined.add("alice", str(Ticket.of_record(ALICE.record())), "desktop")


def test_a_replica_reports_and_gets_a_delegation(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.join()
        await replica.joined.wait_until_granted("alice")
        alice = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        replica.joined.copy_grant(alice)
        assert (alice.delegation, alice.record, alice.packet) == (
            replica.owner.grant.delegation,
            ALICE.record(),
            b"packet",
        )
        assert replica.owner.reports[0].wants_delegation
        await asyncio.sleep(100)
        assert 5 < len(replica.owner.reports) < 9
        assert not replica.owner.reports[-1].wants_delegation
        replica.joined.close()

    run_fast(run())


def test_it_asks_for_another_one_at_half_of_the_lifetime(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.join()
        await replica.joined.wait_until_granted("alice")
        until = replica.joined.infos()[0].until
        replica.now = (NOW + until) / 2 + 1
        await asyncio.sleep(20)
        assert replica.owner.reports[-1].wants_delegation
        replica.joined.close()

    run_fast(run())


def test_it_goes_on_without_its_owner_until_the_delegation_ends(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.join()
        await replica.joined.wait_until_granted("alice")
        replica.owner.is_away = True
        replica.joined.close()
        replica.joined = replica.open()  # as after a restart
        await replica.joined.wait_until_granted("alice")
        await asyncio.sleep(1)
        (words,) = replica.joined.warnings()
        assert "more minutes" in words
        replica.now = replica.joined.infos()[0].until + 1
        with pytest.raises(OwnerAway):
            await replica.joined.wait_until_granted("alice")
        (words,) = replica.joined.warnings()
        assert "has ended" in words
        replica.joined.close()

    run_fast(run())


@pytest.mark.parametrize(
    "grant",
    [
        b"\xc1",
        ReplicaGrant(ALICE.delegation(endpoint=ENDPOINT), ALICE.record(), b""),
        ReplicaGrant(MALLORY.delegation(endpoint=OWN), ALICE.record(), b""),
        ReplicaGrant(ALICE.delegation(endpoint=OWN), MALLORY.record(), b""),
        ReplicaGrant(b"", b"", b""),
        ReplicaGrant(bytes(100_000), ALICE.record(), b""),
    ],
    ids=["garbage", "another endpoint", "another's delegation", "another's record", "nothing", "too long"],
)
def test_a_grant_that_is_not_the_identitys_is_not_kept(tmp_path: Path, grant: ReplicaGrant | bytes) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.owner.grant = grant
        replica.join()
        with pytest.raises(OwnerAway):
            await replica.joined.wait_until_granted("alice")
        assert replica.joined.infos()[0].problem
        replica.joined.close()

    run_fast(run())


@pytest.mark.parametrize("error", [ConnectionLost(what="the connection"), PeerUnreachable(peer="x", reason="y")])
def test_an_owner_that_cannot_answer_is_asked_again(tmp_path: Path, error: P2PError) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.owner.error = error
        replica.join()
        await asyncio.sleep(1)
        replica.owner.error = None
        await replica.joined.wait_until_granted("alice")
        replica.joined.close()

    run_fast(run())


def test_a_replica_that_was_removed_ends_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.join()
        await replica.joined.wait_until_granted("alice")
        replica.online = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        replica.owner.error = ReplicaRemoved(identity=ALICE.key.id52)
        await asyncio.sleep(20)
        assert replica.removed == [replica.online]
        with pytest.raises(ReplicaRemoved):
            await replica.joined.wait_until_granted("alice")
        (words,) = replica.joined.warnings()
        assert "is no replica any more" in words
        replica.joined.close()
        replica.joined = replica.open()
        with pytest.raises(ReplicaRemoved):
            await replica.joined.wait_until_granted("alice")
        replica.joined.close()

    run_fast(run())


def test_a_replica_that_is_not_enrolled_yet_asks_again(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.owner.error = ReplicaRemoved(identity=ALICE.key.id52)
        replica.join()
        await asyncio.sleep(10)
        replica.owner.error = None
        await replica.joined.wait_until_granted("alice")
        replica.joined.close()

    run_fast(run())


def test_an_older_daemon_is_said_to_be_one(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.owner.supports_replicas = False
        replica.join()
        with pytest.raises(OwnerAway, match="older version"):
            await replica.joined.wait_until_granted("alice")
        replica.joined.close()

    run_fast(run())


def test_a_damaged_file_joins_nothing_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / ".joined.json").write_bytes(b"[{}]")
        replica = Replica(tmp_path)
        assert "alice" not in replica.joined
        assert "is damaged" in replica.joined.warnings()[0]
        replica.joined.close()

    run_fast(run())
