"""The report for ``status``: entries up to a limit, known peers first, and totals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.admin_messages import GetNetworkReport, NetworkReport
from fastn_p2p_actors.network.connections.proven_identities import MOST_IDENTITIES_SHOWN, IntroductionRegistry
from fastn_p2p_actors.network.report import Reporter
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_client.ipc.messages import ConnectionStatus
from tests.support.numbered_identities import delegation, endpoint, key
from tests.support.signer import NOW, Signer


class Connection:
    """Shows its identities as a real one does."""

    closed = False

    def __init__(self, registry: IntroductionRegistry[Any], number: int, used_at: float) -> None:
        self.endpoint = endpoint(number)
        self.introductions = registry.of(self.endpoint)
        self.used_at = used_at

    def status(self, name_of: Any) -> ConnectionStatus:
        return ConnectionStatus(
            endpoint=self.endpoint.hex(),
            identities=[name_of(each) for each in self.introductions.shown(MOST_IDENTITIES_SHOWN)],
            path="direct",
            address="",
            rtt_ms=None,
            outgoing=False,
            streams=1,
            in_flight=0,
            sent=0,
            received=0,
            age_ms=0,
            identities_total=len(self.introductions.until),
        )


class Pool:
    own_endpoint = b"o" * 32

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> list[Connection]:
        return self._connections


class ReportSetup:
    """Three identities online, three peers, and 50 connections, of which one has a known peer among many."""

    def __init__(self, directory: Path) -> None:
        self.bob = Signer("bob")
        self.book = AddressBook(directory, lambda: NOW)
        for name in ("carol", "bob", "dave"):
            self.book.add(Signer(name).key.id52, name)
        known = {key(number) for number in range(10_000, 15_000)} | {bytes(self.bob.key)}
        registry = Registry()
        for name in ("shop", "alice", "blog"):
            registry.add_identity(OnlineIdentity(name, Signer(name).key, cast(Any, object())))
        introductions = IntroductionRegistry[Any](known.__contains__)
        connections = [Connection(introductions, number, float(number)) for number in range(50)]
        for number in range(64):
            connections[7].introductions.add(delegation(number))
        for number in range(10_000, 15_000):
            connections[7].introductions.add(delegation(number))
        self.reporter = Reporter(registry, self.book, cast(Any, Pool(connections)), lambda: NOW)

    def report(self, limit: int = 0, identity: str = "") -> NetworkReport:
        asked = self.reporter.report(GetNetworkReport(limit, identity), addresses=("a:1",), clients=1, warnings=[])
        return asyncio.run(asked)


@pytest.fixture
def setup(tmp_path: Path) -> ReportSetup:
    return ReportSetup(tmp_path)


def test_reports_everything_without_a_limit(setup: ReportSetup) -> None:
    report = setup.report()
    assert [each.name for each in report.identities] == ["alice", "blog", "shop"]
    assert [each.name for each in report.peers] == ["bob", "carol", "dave"]
    assert len(report.connections) == 50
    assert (report.identities_total, report.peers_total, report.connections_total) == (3, 3, 50)


def test_a_limit_keeps_the_first_names_and_connections_of_known_peers(setup: ReportSetup) -> None:
    report = setup.report(2)
    assert [each.name for each in report.identities] == ["alice", "blog"]
    assert [each.name for each in report.peers] == ["bob", "carol"]
    assert [each.endpoint for each in report.connections] == [endpoint(7).hex(), endpoint(49).hex()]
    assert (report.identities_total, report.peers_total, report.connections_total) == (3, 3, 50)


def test_counts_those_that_are_asleep_although_they_are_not_shown(setup: ReportSetup) -> None:
    assert setup.report(1).asleep_total == 0
    for name in ("alice", "shop"):
        identity = setup.reporter._registry.by_name(name)
        assert identity is not None
        identity.sender = None
    assert setup.report(1).asleep_total == 2


def test_a_connection_names_known_peers_first(setup: ReportSetup) -> None:
    (first,) = setup.report(1).connections
    assert (len(first.identities), first.identities_total) == (MOST_IDENTITIES_SHOWN, 5064)


def test_reports_one_identity(setup: ReportSetup) -> None:
    report = setup.report(1, "shop")
    assert [each.name for each in report.identities] == ["shop"]
    assert (report.peers, report.connections, report.peers_total) == ([], [], 3)
    assert setup.report(1, "nobody").identities == []
