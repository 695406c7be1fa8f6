"""Homes of bindings at a replica: what it believes, what it keeps, and when it does not trust what it knows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.replicas.joined_identities import JoinedIdentities
from fastn_p2p_actors.network.replicas.replica_grant import ReplicaGrant
from fastn_p2p_actors.network.serving.binding_homes import BindingHome, BindingHomes
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, RegisteredBinding
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import PeerUnreachable
from fastn_p2p_client.tickets import Ticket
from tests.support.fast_time import run_fast
from tests.support.signer import ENDPOINT, NOW, Signer

ALICE = Signer("alice")
OWN = bytes([5]) * 32
"""Endpoint of the replica."""
OTHER = bytes([6]) * 32
"""Endpoint of another replica."""


def home(endpoint: bytes, term: int, daemon: str = "") -> BindingHome:
    return BindingHome("Mail", "default", endpoint, term, daemon, 0)


class Replica:
    """A replica of alice that serves Mail, and its owner's daemon."""

    closed = False
    endpoint = ENDPOINT
    supports_replicas = True

    def __init__(self, path: Path, *homes: BindingHome) -> None:
        self.path = path / ".joined.json"
        self.boot = 1000.0
        self.is_away = False
        self.told: tuple[BindingHome, ...] | None = homes
        self.reports: list[wire.RenewReplica] = []
        self.requests = self
        self.open()
        self.joined.add("alice", str(Ticket.of_record(ALICE.record())), "desktop")

    def open(self) -> None:
        """Start, as after a restart."""
        self.homes = BindingHomes()
        self.homes.own = OWN
        self.alice = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        self.mail = RegisteredBinding(self.alice, "Mail", "default", cast(Any, None))
        self.alice.bindings["Mail", "default"] = self.mail
        self.homes.note("alice", "Mail", "default", keeps_state=True)
        own = SimpleNamespace(id=OWN, address=lambda: SimpleNamespace(relays=(), addresses=()))
        own.watch_address = lambda _: None
        book = SimpleNamespace(note_record=lambda *_: True, known=SimpleNamespace(add_named=lambda _: None))
        registry = SimpleNamespace(by_name=lambda _: self.alice, homes=self.homes)
        arguments = [self.path, own, self.connect, registry, book, lambda: float(NOW), lambda: self.boot]
        self.joined = JoinedIdentities(*cast(Any, arguments))
        self.joined.on_granted = self._ignore
        self.joined.open()

    async def _ignore(self, _: OnlineIdentity) -> None:
        """The record is published."""

    async def connect(self, _identity: bytes, _lineage: bytes) -> Replica:
        if self.is_away:
            raise PeerUnreachable(peer=ALICE.key.id52, reason="no answer")
        return self

    def next_number(self) -> int:
        return len(self.reports) + 1

    def renew_replica(self, waiting: Any, message: wire.RenewReplica) -> None:
        self.reports.append(message)
        grant = ReplicaGrant(ALICE.delegation(endpoint=OWN), ALICE.record(), b"", self.told)
        waiting.on_reply(msgspec.msgpack.encode(grant))

    def cancel(self, _: int) -> None:
        """Nothing waits."""

    def daemon(self) -> str:
        """Return the home that requests are referred to; empty if they are served."""
        away = self.homes.elsewhere(self.mail)
        return "" if away is None else away.daemon


def test_a_replica_serves_only_what_it_is_the_home_of(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path, home(ENDPOINT, 1))
        await asyncio.sleep(20)
        assert replica.daemon() == "desktop"
        replica.told = (home(OWN, 2, "laptop"),)
        await asyncio.sleep(20)
        assert replica.daemon() == ""
        replica.told = (home(OTHER, 3, "phone"),)
        await asyncio.sleep(20)
        assert replica.daemon() == "phone"
        replica.joined.close()

    run_fast(run())


@pytest.mark.parametrize("restarts", [False, True])
def test_an_old_term_never_wins(tmp_path: Path, restarts: bool) -> None:
    async def run() -> None:
        replica = Replica(tmp_path, home(OTHER, 7, "phone"))
        await asyncio.sleep(20)
        if restarts:
            replica.joined.close()
            replica.open()
        replica.told = (home(OWN, 6, "laptop"),)
        await asyncio.sleep(20)
        assert replica.daemon() == "phone"
        replica.told = (home(OWN, 8, "laptop"),)
        await asyncio.sleep(20)
        assert replica.daemon() == ""
        replica.joined.close()

    run_fast(run())


def test_a_restarted_home_serves_once_its_owner_has_answered(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path, home(OWN, 1, "laptop"))
        await asyncio.sleep(20)
        replica.joined.close()
        replica.open()
        assert replica.daemon() == "not confirmed yet"
        replica.told = (home(OTHER, 2, "phone"),)
        await asyncio.sleep(20)
        assert replica.daemon() == "phone"
        replica.joined.close()

    run_fast(run())


def test_a_restarted_home_serves_if_its_owner_is_away(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path, home(OWN, 1, "laptop"))
        await asyncio.sleep(20)
        replica.joined.close()
        replica.is_away = True
        replica.open()
        await asyncio.sleep(20)
        assert replica.daemon() == ""
        replica.joined.close()

    run_fast(run())


def test_a_home_that_was_frozen_does_not_serve_before_it_has_reported(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path, home(OWN, 1, "laptop"))
        await asyncio.sleep(20)
        replica.boot += 4
        assert replica.daemon() == ""
        replica.boot += 6
        assert replica.daemon() == "not confirmed yet"
        await asyncio.sleep(1)  # it reports at once
        assert replica.daemon() == ""
        replica.boot += 6
        await asyncio.sleep(0.9)
        replica.is_away = True
        await asyncio.sleep(1)
        assert replica.daemon() == ""
        replica.joined.close()

    run_fast(run())


def test_a_binding_without_a_home_is_reported_and_not_served(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        await asyncio.sleep(20)
        assert replica.daemon() == "not chosen yet"
        assert list(replica.reports[-1].bindings) == [("Mail", "default")]
        replica.told = (home(OWN, 1, "laptop"),)
        await asyncio.sleep(40)
        assert replica.daemon() == ""
        assert list(replica.reports[-1].bindings) == []
        replica.joined.close()

    run_fast(run())


def test_an_older_owner_chooses_no_homes(tmp_path: Path) -> None:
    async def run() -> None:
        replica = Replica(tmp_path)
        replica.told = None
        await asyncio.sleep(20)
        assert replica.daemon() == ""
        replica.joined.close()

    run_fast(run())
