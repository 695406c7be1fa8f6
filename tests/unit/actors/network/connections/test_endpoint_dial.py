"""Paths of an endpoint are tried side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import endpoint_dial
from fastn_p2p_actors.network.connections.endpoint_dial import EndpointDial
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import PeerUnreachable

FIRST, SECOND = "https://first.example/", "https://second.example/"
HOME, OFFICE = "192.0.2.1:7", "198.51.100.1:7"


class Paths:
    """Paths that behave as a test says: a path without an outcome is silent.

    Attributes:
        outcomes: connection or error by path.
        tried: paths in the order of their handshakes, each as (addresses, relays).
        cancelled: those that were cancelled.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(endpoint_dial, "_STAGGER", 0.01)
        monkeypatch.setattr(endpoint_dial, "_LONGEST_DELAY", 0.02)
        monkeypatch.setattr(endpoint_dial, "_FIRST_BACKOFF", 0.001)
        self.outcomes: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self.tried: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.cancelled: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self._changed = asyncio.Event()

    async def _open(self, path: EndpointAddress) -> Any:
        key = path.addresses, path.relays
        self.tried.append(key)
        self._changed.set()
        outcome = self.outcomes.get(key)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(key)
                raise
        return outcome

    def dial(self, addresses: tuple[str, ...], relays: tuple[str, ...] = ()) -> EndpointDial:
        open_path = cast(Callable[[EndpointAddress], Awaitable[Any]], self._open)
        return EndpointDial(EndpointAddress(b"endpoint", relays, addresses), open_path, lambda: 0.0)

    async def wait_tried(self, count: int) -> None:
        """Wait until so many handshakes have begun."""
        while len(self.tried) < count:
            self._changed.clear()
            await self._changed.wait()


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Paths:
    return Paths(monkeypatch)


async def test_the_first_path_has_the_addresses_and_the_first_relay(paths: Paths) -> None:
    paths.outcomes[(HOME,), (FIRST,)] = "connection"
    assert await paths.dial((HOME,), (FIRST, SECOND)).run() == cast(Any, "connection")
    assert paths.tried == [((HOME,), (FIRST,))]


async def test_further_relays_and_then_the_relay_alone_are_tried_beside_silent_paths(paths: Paths) -> None:
    """The first connection wins, and the other handshakes are cancelled."""
    paths.outcomes[(), (FIRST,)] = "connection"
    assert await paths.dial((HOME,), (FIRST, SECOND)).run() == cast(Any, "connection")
    assert paths.tried == [((HOME,), (FIRST,)), ((), (SECOND,)), ((), (FIRST,))]
    await asyncio.sleep(0)
    assert sorted(paths.cancelled) == [((), (SECOND,)), ((HOME,), (FIRST,))]


async def test_silent_paths_are_tried_again(paths: Paths) -> None:
    """A link that is cut now may work in a second."""
    dialling = asyncio.create_task(paths.dial((HOME,)).run())
    await paths.wait_tried(2)
    paths.outcomes[(HOME,), ()] = "connection"
    assert await dialling == cast(Any, "connection")


async def test_newer_addresses_are_tried_at_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_dial, "_STAGGER", 60.0)
    monkeypatch.setattr(endpoint_dial, "_LONGEST_DELAY", 60.0)
    paths.outcomes[(OFFICE,), (SECOND,)] = "connection"
    dial = paths.dial((HOME,))
    dialling = asyncio.create_task(dial.run())
    await paths.wait_tried(1)
    dial.offer(EndpointAddress(b"endpoint", (), (HOME,)))
    dial.offer(EndpointAddress(b"endpoint", (SECOND,), (HOME, OFFICE)))
    assert await dialling == cast(Any, "connection")
    assert paths.tried == [((HOME,), ()), ((OFFICE,), (SECOND,))]


async def test_a_connection_that_the_peer_daemon_opens_ends_the_dial(paths: Paths) -> None:
    dial = paths.dial((HOME,))
    dialling = asyncio.create_task(dial.run())
    await paths.wait_tried(1)
    dial.on_hello(cast(Any, "connection of the peer"))
    assert await dialling == cast(Any, "connection of the peer")
    await asyncio.sleep(0)
    assert paths.cancelled


async def test_the_error_is_that_of_the_direct_addresses(paths: Paths) -> None:
    """Not that of the relay alone, which was tried because they had failed."""
    paths.outcomes[(HOME,), (FIRST,)] = PeerUnreachable(peer="endpoint", reason="it refuses")
    paths.outcomes[(), (FIRST,)] = PeerUnreachable(peer="endpoint", reason="the relay does not know it")
    with pytest.raises(PeerUnreachable, match="it refuses"):
        await paths.dial((HOME,), (FIRST,)).run()
    assert len(paths.tried) == 6


async def test_an_endpoint_that_never_answers_is_given_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_dial, "_TIMEOUT", 0.05)
    with pytest.raises(PeerUnreachable, match="no answer to the handshake"):
        await paths.dial((HOME,)).run()
    await asyncio.sleep(0)
    assert len(paths.cancelled) == len(paths.tried) > 1
