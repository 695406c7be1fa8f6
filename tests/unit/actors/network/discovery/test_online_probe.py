"""The online probe asks the right endpoints, at the right intervals. The test controls time and chance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.discovery import online_probe
from fastn_p2p_actors.network.discovery.online_probe import OnlineProbe
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import PeerUnreachable
from tests.support.event_loop import run_pending

BOB, CAROL = b"b" * 32, b"c" * 32
HERE, THERE = b"1" * 32, b"2" * 32


class StubConnection:
    def __init__(self, endpoint: bytes) -> None:
        self.endpoint = endpoint
        self.remote_process = b"process"
        self.ready = asyncio.get_running_loop().create_future()
        self.ready.set_result(None)
        self.asked_for: list[bytes] = []

    def send_introduction_request(self, identity: bytes) -> None:
        self.asked_for.append(identity)


class StubNetwork:
    """Probe, with stubs of its pool, its router and its host directory. A test ends its delays."""

    def __init__(self) -> None:
        self.candidates: dict[bytes, list[tuple[EndpointAddress, int]]] = {}
        self.connections: dict[bytes, StubConnection] = {}
        self.heard_at: dict[bytes, list[StubConnection]] = {}
        self.introductions = SimpleNamespace(
            at=lambda identity: [SimpleNamespace(connection=each) for each in self.heard_at.get(identity, [])]
        )
        self.reachable: set[bytes] = set()
        self.dialled: list[EndpointAddress] = []
        self.delays: list[float] = []
        self.resting: list[asyncio.Future[None]] = []
        self.changed = 0
        self.probe = OnlineProbe(
            cast(Any, self),
            cast(Any, self),
            cast(Any, self),
            cast(Any, SimpleNamespace(generation=0)),
            jitter=lambda: 0.5,
            rest=self.rest,
        )

    # the pool

    def open_to(self, endpoint: bytes) -> StubConnection | None:
        return self.connections.get(endpoint)

    async def connect(self, address: EndpointAddress) -> StubConnection:
        self.dialled.append(address)
        if address.endpoint not in self.reachable:
            raise PeerUnreachable(peer="endpoint", reason="nobody answers")
        return self.connections.setdefault(address.endpoint, StubConnection(address.endpoint))

    # the router and the host directory

    def known(self, target: bytes, _peer: str) -> list[Any]:
        return [
            SimpleNamespace(address=address, sequence=sequence) for address, sequence in self.candidates.get(target, [])
        ]

    def changed_at(self) -> int:
        return self.changed

    async def rest(self, wake: asyncio.Event, seconds: float) -> None:
        self.delays.append(seconds)
        over = asyncio.get_running_loop().create_future()
        woken = asyncio.ensure_future(wake.wait())
        self.resting.append(over)
        try:
            await asyncio.wait((over, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            self.resting.remove(over)

    async def end_delays(self) -> None:
        await run_pending()
        for over in self.resting:
            over.set_result(None)
        await run_pending()

    def is_watching(self) -> bool:
        return self.probe._timer is not None

    async def check(self) -> None:
        """Do what the timer does."""
        self.changed += 1
        self.probe._check()
        await run_pending()


def at(endpoint: bytes, *addresses: str) -> EndpointAddress:
    return EndpointAddress(endpoint, (), addresses)


@pytest.fixture
async def network() -> AsyncIterator[StubNetwork]:
    """A probe and its stubs. The probe leaves no task."""
    network = StubNetwork()
    yield network
    network.probe.close()
    await run_pending()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_backs_off_from_an_endpoint_that_cannot_be_reached(network: StubNetwork) -> None:
    network.candidates[BOB] = [(at(THERE, "a:1"), 1)]
    network.probe.watch(BOB, "bob")
    for _ in range(8):
        await network.end_delays()
    assert network.delays[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(network.dialled) == len(network.delays)


async def test_jitter_varies_a_delay_by_a_quarter(network: StubNetwork) -> None:
    for chance, delay in ((0.0, 0.75), (1.0, 1.25)):
        network.probe._jitter = lambda chance=chance: chance  # type: ignore[misc]
        assert network.probe._varied(1) == delay


async def test_asks_over_an_open_connection_without_dialling(network: StubNetwork) -> None:
    network.candidates[BOB] = [(at(THERE), 1)]
    connection = network.connections[THERE] = StubConnection(THERE)
    network.probe.watch(BOB, "bob")
    await run_pending()
    assert (connection.asked_for, network.dialled) == ([BOB], [])
    await network.end_delays()
    assert (connection.asked_for, network.dialled) == ([BOB, BOB], [])


async def test_asks_the_endpoint_that_last_introduced_the_peer_without_a_record(network: StubNetwork) -> None:
    connection = network.connections[THERE] = StubConnection(THERE)
    stranger = network.connections[HERE] = StubConnection(HERE)
    network.heard_at[BOB] = [connection]
    network.probe.watch(BOB, "bob")
    await run_pending()
    assert (connection.asked_for, stranger.asked_for) == ([BOB], [])


async def test_asks_over_a_new_connection_at_once_and_reconnects_soon_after_one_ends(
    network: StubNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_probe, "_FIRST_DELAY", 0.001)
    network.candidates[BOB] = [(at(THERE), 1)]
    network.probe.watch(BOB, "bob")
    for _ in range(3):
        await network.end_delays()
    dials = len(network.dialled)
    connection = network.connections[THERE] = StubConnection(THERE)
    network.probe.on_connected(cast(Any, connection))
    await run_pending()
    assert connection.asked_for == [BOB]
    del network.connections[THERE]
    network.probe.on_disconnected(cast(Any, connection))
    while len(network.dialled) == dials:
        await run_pending()
    assert network.delays[-1] == 0.001


async def test_a_failed_handshake_does_not_shorten_the_delay(network: StubNetwork) -> None:
    network.candidates[BOB] = [(at(THERE), 1)]
    network.probe.watch(BOB, "bob")
    await network.end_delays()
    failed = StubConnection(THERE)
    failed.remote_process = b""
    network.probe.on_disconnected(cast(Any, failed))
    await network.end_delays()
    assert network.delays == [1, 2, 4]


async def test_updates_its_endpoints_when_a_record_appears_changes_or_goes(network: StubNetwork) -> None:
    network.probe.watch(BOB, "bob")
    await run_pending()
    assert network.dialled == []
    network.candidates[BOB] = [(at(THERE, "a:1"), 1)]
    await network.check()
    assert network.dialled == [at(THERE, "a:1")]
    await network.check()  # something else has changed
    assert len(network.dialled) == 1
    network.candidates[BOB] = [(at(THERE, "a:1"), 2)]  # the daemon has been started anew
    await network.check()
    network.candidates[BOB] = [(at(THERE, "a:2"), 2)]
    await network.check()
    assert [address.addresses for address in network.dialled] == [("a:1",), ("a:1",), ("a:2",)]
    network.candidates[BOB] = []
    await network.check()
    await network.end_delays()
    assert len(network.dialled) == 3


async def test_leaves_nothing_behind_when_no_program_waits(network: StubNetwork) -> None:
    network.candidates = {BOB: [(at(THERE), 1), (at(HERE), 1)], CAROL: [(at(THERE), 1)]}
    network.reachable = {THERE}
    for target in (BOB, CAROL, BOB):
        network.probe.watch(target, "a name")
    await run_pending()
    assert set(network.connections[THERE].asked_for) == {BOB, CAROL}
    assert network.is_watching()
    for target in (BOB, CAROL, CAROL):
        network.probe.unwatch(target)
    assert len(network.probe) == 0
    assert not network.is_watching()
    dials = len(network.dialled)
    await network.end_delays()
    assert len(network.dialled) == dials
