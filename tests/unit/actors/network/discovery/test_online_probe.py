"""The online probe asks the right endpoints, at the right intervals. The test controls time and chance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.discovery import online_probe
from fastn_p2p_actors.network.discovery.online_probe import OnlineProbe
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import PeerUnreachable
from tests.support.scenario import a_few_turns

BOB, CAROL = b"b" * 32, b"c" * 32
HERE, THERE = b"1" * 32, b"2" * 32
Work = Callable[["ProbeWorld"], Coroutine[Any, Any, None]]


class StubConnection:
    def __init__(self, endpoint: bytes) -> None:
        self.endpoint = endpoint
        self.remote_process = b"process"
        self.ready = asyncio.get_running_loop().create_future()
        self.ready.set_result(None)
        self.asked_for: list[bytes] = []

    def ask_for(self, identity: bytes) -> None:
        self.asked_for.append(identity)


class ProbeWorld:
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
        await a_few_turns()
        for over in self.resting:
            over.set_result(None)
        await a_few_turns()

    def is_watching(self) -> bool:
        return self.probe._timer is not None

    async def check(self) -> None:
        """Do what the timer does."""
        self.changed += 1
        self.probe._check()
        await a_few_turns()


def play(work: Work) -> None:
    async def main() -> None:
        world = ProbeWorld()
        async with asyncio.timeout(10):
            await work(world)
        world.probe.close()
        await a_few_turns()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(main())


def at(endpoint: bytes, *addresses: str) -> EndpointAddress:
    return EndpointAddress(endpoint, (), addresses)


def test_backs_off_from_an_endpoint_that_cannot_be_reached() -> None:
    async def work(world: ProbeWorld) -> None:
        world.candidates[BOB] = [(at(THERE, "a:1"), 1)]
        world.probe.watch(BOB, "bob")
        for _ in range(8):
            await world.end_delays()
        assert world.delays[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert len(world.dialled) == len(world.delays)

    play(work)


def test_jitter_varies_a_delay_by_a_quarter() -> None:
    async def work(world: ProbeWorld) -> None:
        for chance, delay in ((0.0, 0.75), (1.0, 1.25)):
            world.probe._jitter = lambda chance=chance: chance  # type: ignore[misc]
            assert world.probe._varied(1) == delay

    play(work)


def test_asks_over_an_open_connection_without_dialling() -> None:
    async def work(world: ProbeWorld) -> None:
        world.candidates[BOB] = [(at(THERE), 1)]
        connection = world.connections[THERE] = StubConnection(THERE)
        world.probe.watch(BOB, "bob")
        await a_few_turns()
        assert (connection.asked_for, world.dialled) == ([BOB], [])
        await world.end_delays()
        assert (connection.asked_for, world.dialled) == ([BOB, BOB], [])

    play(work)


def test_asks_the_endpoint_that_last_introduced_the_peer_without_a_record() -> None:
    async def work(world: ProbeWorld) -> None:
        connection = world.connections[THERE] = StubConnection(THERE)
        stranger = world.connections[HERE] = StubConnection(HERE)
        world.heard_at[BOB] = [connection]
        world.probe.watch(BOB, "bob")
        await a_few_turns()
        assert (connection.asked_for, stranger.asked_for) == ([BOB], [])

    play(work)


def test_asks_over_a_new_connection_at_once_and_reconnects_soon_after_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(online_probe, "_FIRST_DELAY", 0.001)

    async def work(world: ProbeWorld) -> None:
        world.candidates[BOB] = [(at(THERE), 1)]
        world.probe.watch(BOB, "bob")
        for _ in range(3):
            await world.end_delays()
        dials = len(world.dialled)
        connection = world.connections[THERE] = StubConnection(THERE)
        world.probe.on_connected(cast(Any, connection))
        await a_few_turns()
        assert connection.asked_for == [BOB]
        del world.connections[THERE]
        world.probe.on_disconnected(cast(Any, connection))
        while len(world.dialled) == dials:
            await a_few_turns()
        assert world.delays[-1] == 0.001

    play(work)


def test_a_failed_handshake_does_not_shorten_the_delay() -> None:
    async def work(world: ProbeWorld) -> None:
        world.candidates[BOB] = [(at(THERE), 1)]
        world.probe.watch(BOB, "bob")
        await world.end_delays()
        failed = StubConnection(THERE)
        failed.remote_process = b""
        world.probe.on_disconnected(cast(Any, failed))
        await world.end_delays()
        assert world.delays == [1, 2, 4]

    play(work)


def test_updates_its_endpoints_when_a_record_appears_changes_or_goes() -> None:
    async def work(world: ProbeWorld) -> None:
        world.probe.watch(BOB, "bob")
        await a_few_turns()
        assert world.dialled == []
        world.candidates[BOB] = [(at(THERE, "a:1"), 1)]
        await world.check()
        assert world.dialled == [at(THERE, "a:1")]
        await world.check()  # something else has changed
        assert len(world.dialled) == 1
        world.candidates[BOB] = [(at(THERE, "a:1"), 2)]  # the daemon has been started anew
        await world.check()
        world.candidates[BOB] = [(at(THERE, "a:2"), 2)]
        await world.check()
        assert [address.addresses for address in world.dialled] == [("a:1",), ("a:1",), ("a:2",)]
        world.candidates[BOB] = []
        await world.check()
        await world.end_delays()
        assert len(world.dialled) == 3

    play(work)


def test_leaves_nothing_behind_when_no_program_waits() -> None:
    async def work(world: ProbeWorld) -> None:
        world.candidates = {BOB: [(at(THERE), 1), (at(HERE), 1)], CAROL: [(at(THERE), 1)]}
        world.reachable = {THERE}
        for target in (BOB, CAROL, BOB):
            world.probe.watch(target, "a name")
        await a_few_turns()
        assert set(world.connections[THERE].asked_for) == {BOB, CAROL}
        assert world.is_watching()
        for target in (BOB, CAROL, CAROL):
            world.probe.unwatch(target)
        assert len(world.probe) == 0
        assert not world.is_watching()
        dials = len(world.dialled)
        await world.end_delays()
        assert len(world.dialled) == dials

    play(work)
