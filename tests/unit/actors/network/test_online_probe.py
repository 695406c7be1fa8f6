"""Where a peer is looked for that is not online yet, and how often; time and chance are the test's."""

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
Work = Callable[["Coast"], Coroutine[Any, Any, None]]


class StubConnection:
    def __init__(self, endpoint: bytes) -> None:
        self.endpoint = endpoint
        self.remote_process = b"process"
        self.ready = asyncio.get_running_loop().create_future()
        self.ready.set_result(None)
        self.asked_for: list[bytes] = []

    def ask_for(self, identity: bytes) -> None:
        self.asked_for.append(identity)


class Coast:
    """A lookout over endpoints that a test puts there, and whose pauses end when it says so."""

    def __init__(self) -> None:
        self.known_places: dict[bytes, list[tuple[EndpointAddress, int]]] = {}
        self.connections: dict[bytes, StubConnection] = {}
        self.heard_at: dict[bytes, list[StubConnection]] = {}
        self.introductions = SimpleNamespace(
            at=lambda identity: [SimpleNamespace(connection=each) for each in self.heard_at.get(identity, [])]
        )
        self.reachable: set[bytes] = set()
        self.dialled: list[EndpointAddress] = []
        self.pauses: list[float] = []
        self.resting: list[asyncio.Future[None]] = []
        self.changed = 0
        self.lookout = OnlineProbe(
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

    # routes and the host directory

    def known(self, target: bytes, _peer: str) -> list[Any]:
        return [
            SimpleNamespace(address=address, sequence=sequence)
            for address, sequence in self.known_places.get(target, [])
        ]

    def changed_at(self) -> int:
        return self.changed

    async def rest(self, stirred: asyncio.Event, seconds: float) -> None:
        self.pauses.append(seconds)
        over = asyncio.get_running_loop().create_future()
        stir = asyncio.ensure_future(stirred.wait())
        self.resting.append(over)
        try:
            await asyncio.wait((over, stir), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stir.cancel()
            self.resting.remove(over)

    async def pause_ends(self) -> None:
        await a_few_turns()
        for over in self.resting:
            over.set_result(None)
        await a_few_turns()

    def is_looking(self) -> bool:
        return self.lookout._timer is not None

    async def look(self) -> None:
        """As the timer does."""
        self.changed += 1
        self.lookout._look()
        await a_few_turns()


def play(work: Work) -> None:
    async def main() -> None:
        coast = Coast()
        async with asyncio.timeout(10):
            await work(coast)
        coast.lookout.close()
        await a_few_turns()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(main())


def at(endpoint: bytes, *addresses: str) -> EndpointAddress:
    return EndpointAddress(endpoint, (), addresses)


def test_an_endpoint_that_is_not_reached_is_dialled_less_and_less_often() -> None:
    async def work(coast: Coast) -> None:
        coast.known_places[BOB] = [(at(THERE, "a:1"), 1)]
        coast.lookout.watch(BOB, "bob")
        for _ in range(8):
            await coast.pause_ends()
        assert coast.pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert len(coast.dialled) == len(coast.pauses)

    play(work)


def test_chance_varies_a_pause_by_a_quarter() -> None:
    async def work(coast: Coast) -> None:
        for chance, pause in ((0.0, 0.75), (1.0, 1.25)):
            coast.lookout._jitter = lambda chance=chance: chance  # type: ignore[misc]
            assert coast.lookout._varied(1) == pause

    play(work)


def test_a_connection_that_stands_is_asked_and_nobody_dials() -> None:
    async def work(coast: Coast) -> None:
        coast.known_places[BOB] = [(at(THERE), 1)]
        connection = coast.connections[THERE] = StubConnection(THERE)
        coast.lookout.watch(BOB, "bob")
        await a_few_turns()
        assert (connection.asked_for, coast.dialled) == ([BOB], [])
        await coast.pause_ends()
        assert (connection.asked_for, coast.dialled) == ([BOB, BOB], [])

    play(work)


def test_where_the_peer_was_heard_before_is_asked_without_a_record() -> None:
    async def work(coast: Coast) -> None:
        connection = coast.connections[THERE] = StubConnection(THERE)
        stranger = coast.connections[HERE] = StubConnection(HERE)
        coast.heard_at[BOB] = [connection]
        coast.lookout.watch(BOB, "bob")
        await a_few_turns()
        assert (connection.asked_for, stranger.asked_for) == ([BOB], [])

    play(work)


def test_a_connection_that_comes_up_is_asked_at_once_and_one_that_ends_is_made_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(online_probe, "_FIRST_PAUSE", 0.001)

    async def work(coast: Coast) -> None:
        coast.known_places[BOB] = [(at(THERE), 1)]
        coast.lookout.watch(BOB, "bob")
        for _ in range(3):
            await coast.pause_ends()
        dials = len(coast.dialled)
        connection = coast.connections[THERE] = StubConnection(THERE)
        coast.lookout.connected(cast(Any, connection))
        await a_few_turns()
        assert connection.asked_for == [BOB]
        del coast.connections[THERE]
        coast.lookout.lost(cast(Any, connection))
        while len(coast.dialled) == dials:
            await a_few_turns()
        assert coast.pauses[-1] == 0.001

    play(work)


def test_a_connection_that_never_stood_does_not_shorten_the_pause() -> None:
    async def work(coast: Coast) -> None:
        coast.known_places[BOB] = [(at(THERE), 1)]
        coast.lookout.watch(BOB, "bob")
        await coast.pause_ends()
        failed = StubConnection(THERE)
        failed.remote_process = b""
        coast.lookout.lost(cast(Any, failed))
        await coast.pause_ends()
        assert coast.pauses == [1, 2, 4]

    play(work)


def test_a_record_that_appears_changes_or_goes_is_followed() -> None:
    async def work(coast: Coast) -> None:
        coast.lookout.watch(BOB, "bob")
        await a_few_turns()
        assert coast.dialled == []
        coast.known_places[BOB] = [(at(THERE, "a:1"), 1)]
        await coast.look()
        assert coast.dialled == [at(THERE, "a:1")]
        await coast.look()  # something else has changed
        assert len(coast.dialled) == 1
        coast.known_places[BOB] = [(at(THERE, "a:1"), 2)]  # the daemon has been started anew
        await coast.look()
        coast.known_places[BOB] = [(at(THERE, "a:2"), 2)]
        await coast.look()
        assert [address.addresses for address in coast.dialled] == [("a:1",), ("a:1",), ("a:2",)]
        coast.known_places[BOB] = []
        await coast.look()
        await coast.pause_ends()
        assert len(coast.dialled) == 3

    play(work)


def test_nothing_is_left_when_nobody_waits_any_more() -> None:
    async def work(coast: Coast) -> None:
        coast.known_places = {BOB: [(at(THERE), 1), (at(HERE), 1)], CAROL: [(at(THERE), 1)]}
        coast.reachable = {THERE}
        for target in (BOB, CAROL, BOB):
            coast.lookout.watch(target, "a name")
        await a_few_turns()
        assert set(coast.connections[THERE].asked_for) == {BOB, CAROL}
        assert coast.is_looking()
        for target in (BOB, CAROL, CAROL):
            coast.lookout.leave(target)
        assert len(coast.lookout) == 0
        assert not coast.is_looking()
        dials = len(coast.dialled)
        await coast.pause_ends()
        assert len(coast.dialled) == dials

    play(work)
