"""A peer daemon that does not answer: a cut link is told from a path that is dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections.network_path import NetworkPath
from fastn_p2p_actors.network.discovery import silent_connections
from fastn_p2p_actors.network.discovery.record_finder import Lookup, SourceResult
from fastn_p2p_actors.network.discovery.silent_connections import SilentConnections
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import PeerUnreachable

ENDPOINT = b"\x01" * 32
OLD, NEW, RELAY = "192.0.2.1:7", "198.51.100.1:7", "https://relay.example/"
OWN_RELAY = "https://own-relay.example/"


class StubConnection:
    """Connection over the path ``OLD``."""

    def __init__(self, *, silent: bool) -> None:
        self.endpoint = ENDPOINT
        self.name = "endpoint"
        self.address = OLD
        self.outgoing = False
        self.is_silent = silent
        self.silent_since = asyncio.get_running_loop().time()
        self.is_pinged = False
        self.hello_is_late = False
        self.closed = False
        self.released = self.doubts = self.received = 0
        self.is_healing = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready.set_result(None)
        self.introductions = SimpleNamespace(shown=lambda _: [b"identity"])
        self.requests = SimpleNamespace(release_repeatable=self._release)
        self.on_close: Callable[[], object] = lambda: None

    @property
    def answers(self) -> bool:
        return not (self.is_silent or self.is_pinged or self.hello_is_late)

    def _release(self) -> None:
        self.released += 1
        if self.released > 1:
            self.is_healing.set()

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (OLD,), ()

    def path_now(self) -> NetworkPath:
        return NetworkPath("relayed" if "://" in self.address else "direct", self.address, 1)

    def received_datagrams(self, address: str) -> int:
        assert address == OLD
        return self.received

    def doubt(self) -> None:
        self.doubts += 1

    def close(self, _code: int, _reason: str) -> None:
        self.closed, self.is_silent = True, False
        self.on_close()


class Peer:
    """Peer daemon with one silent connection.

    Attributes:
        old_path_works: whether handshakes over the old path are answered.
        answers: whether one of the other paths is answered.
        answers_from: address from which new connections are answered.
        slowness: seconds that each answer takes.
        answers_left: number of probes that are answered.
        probed: addresses that were probed.
        dialled: addresses that were dialled after the old connections were closed.
        lookups: identities whose records were looked for.
        tried_often: set after five handshakes.
        is_probed: set after the first probe.
        path_is_free: cleared while no dial succeeds, because a connection holds the dead path.
    """

    def __init__(self) -> None:
        self.old_path_works = self.answers = False
        self.answers_from = OLD
        self.slowness = 0.0
        self.answers_left = 1000
        self.probed: list[EndpointAddress] = []
        self.dialled: list[EndpointAddress] = []
        self.lookups: list[bytes] = []
        self.tried_often = asyncio.Event()
        self.is_probed = asyncio.Event()
        self.path_is_free = asyncio.Event()
        self.path_is_free.set()
        self._handshakes = 0
        self.local = EndpointAddress(b"own", (), ("10.0.0.1:7",))
        self.on_address: Callable[[], object] = lambda: None
        self.connection = StubConnection(silent=True)
        self.connections = [self.connection]
        endpoint = SimpleNamespace(
            answers=self._probe, address=lambda: self.local, watch_address=self._watch, relays=(RELAY, OWN_RELAY)
        )
        pool = SimpleNamespace(
            on_silent=lambda _: None,
            silent=lambda _: [each for each in self.connections if each.is_silent],
            unanswered=lambda _, path="": [
                each for each in self.connections if each.is_silent or (each.hello_is_late and not path)
            ],
            open_to=lambda _: min(self.connections, key=lambda each: (each.closed, each.is_silent)),
            open_path=self._open,
            connect=self._connect,
            all=lambda: self.connections,
        )
        self.known = EndpointAddress(ENDPOINT, (RELAY, OWN_RELAY), (NEW, OLD))
        router = SimpleNamespace(known=lambda _identity, _peer: [SimpleNamespace(address=self.known)])
        self.lookup = Lookup([SourceResult("a source")])
        finder = SimpleNamespace(look_up=self._look_up)
        self.watch = SilentConnections(cast(Any, endpoint), cast(Any, pool), cast(Any, router), cast(Any, finder))

    def _look_up(self, identity: bytes) -> Lookup:
        self.lookups.append(identity)
        return self.lookup

    def _watch(self, on_change: Callable[[], object]) -> None:
        self.on_address = on_change

    async def _probe(self, address: EndpointAddress) -> bool:
        self.probed.append(address)
        self.is_probed.set()
        self.answers_left -= 1
        if not self.answers or self.answers_left < 0:
            await asyncio.Event().wait()
        await asyncio.sleep(self.slowness)
        return True

    async def _open(self, _address: EndpointAddress) -> Any:
        self._handshakes += 1
        if self._handshakes >= 5:
            self.tried_often.set()
        if not self.old_path_works:
            await asyncio.Event().wait()
        await asyncio.sleep(self.slowness)
        self.connections.append(StubConnection(silent=False))
        self.connections[-1].address = self.answers_from
        return self.connections[-1]

    async def _connect(self, address: EndpointAddress) -> Any:
        self.dialled.append(address)
        await self.path_is_free.wait()
        raise PeerUnreachable(peer="endpoint", reason="it is a stub")

    async def run(self) -> None:
        """Let the connection become silent, and wait until nothing is done about it any more."""
        self.watch.on_silent(cast(Any, self.connection))
        await asyncio.wait(list(self.watch._watches.values()), timeout=60)

    async def wait_healing(self, running: asyncio.Future[None]) -> None:
        """Wait until the connection gets time to heal, or ``run`` has ended."""
        healing = asyncio.ensure_future(self.connection.is_healing.wait())
        await asyncio.wait((running, healing), return_when=asyncio.FIRST_COMPLETED)
        healing.cancel()


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peer]:
    for name, seconds in (
        ("_INTERVAL", 0.02),
        ("_FIRST_INTERVAL", 0.02),
        ("_CONFIRMATION", 0.01),
        ("_HEAL", 0.1),
        ("_HEAL_MARGIN", 0.0),
        ("_HEAL_INTERVAL", 0.01),
    ):
        monkeypatch.setattr(silent_connections, name, seconds)
    peer = Peer()
    yield peer
    peer.watch.close()


async def test_a_path_is_dead_if_only_another_one_answers(peer: Peer) -> None:
    """The old connection is closed before the dial, which tries every path, the newest first, and own relays last."""
    peer.answers = True
    await peer.run()
    assert peer.connection.closed
    assert peer.probed[0] == EndpointAddress(ENDPOINT, (RELAY, OWN_RELAY), (NEW,))
    assert peer.dialled == [EndpointAddress(ENDPOINT, (RELAY, OWN_RELAY), (NEW, OLD))]
    assert peer.lookups == [b"identity"]


async def test_a_connection_whose_hello_does_not_come_does_not_hold_the_dead_path(peer: Peer) -> None:
    peer.answers = True
    late = StubConnection(silent=False)
    late.hello_is_late = True
    late.on_close = peer.path_is_free.set
    peer.path_is_free.clear()
    peer.connections.append(late)
    await peer.run()
    assert late.closed
    assert len(peer.dialled) == 1


async def test_a_newer_address_is_probed_as_soon_as_it_is_known(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the probe of the older ones has ended."""
    for name in ("_FIRST_INTERVAL", "_INTERVAL"):
        monkeypatch.setattr(silent_connections, name, 3600.0)
    running = asyncio.ensure_future(peer.run())
    await peer.is_probed.wait()
    newest = "203.0.113.1:7"
    peer.known = EndpointAddress(ENDPOINT, (), (newest, OLD))
    peer.answers = True
    peer.lookup.notify()
    await running
    assert [each.addresses for each in peer.probed[:2]] == [(NEW,), (newest,)]
    assert peer.connection.closed


async def test_a_cut_link_is_waited_for(peer: Peer) -> None:
    running = asyncio.ensure_future(peer.run())
    await peer.tried_often.wait()
    assert not peer.connection.closed
    peer.connection.is_silent = False  # the link is back, and QUIC goes on
    await running
    assert not peer.connection.closed
    assert not peer.dialled


async def test_a_path_that_works_again_is_not_dead_although_another_one_answers_too(peer: Peer) -> None:
    """Calls that may be repeated are; the others wait for the old connection, which gets some time."""
    peer.answers = peer.old_path_works = True
    ended: list[int] = []
    peer.connection.on_close = lambda: ended.append(peer.connection.released)
    await peer.run()
    assert not peer.dialled
    assert ended
    assert ended[0] > 0


async def test_a_path_that_brings_packets_and_takes_none_is_dead(peer: Peer) -> None:
    """But not after the first handshake, which may be lost by chance."""
    peer.answers = True
    counts = iter(range(1000))
    peer.connection.received_datagrams = lambda address: next(counts)  # type: ignore[method-assign]
    await peer.run()
    assert peer.connection.closed
    assert peer.dialled
    assert peer._handshakes == 4


async def test_a_slow_process_is_not_taken_for_a_dead_path(peer: Peer) -> None:
    """The probe was answered, and the next ones are not. QUIC acknowledges all the same."""
    peer.answers = True
    peer.answers_left = 1
    counts = iter(range(1000))
    peer.connection.received_datagrams = lambda address: next(counts)  # type: ignore[method-assign]
    running = asyncio.ensure_future(peer.run())
    await peer.tried_often.wait()
    assert not peer.connection.closed
    peer.connection.is_silent = False
    await running


async def test_a_slow_machine_gets_more_time_for_the_handshake(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other path is timed beside it: both take ten times as long as is usually enough, and the old path works."""
    monkeypatch.setattr(silent_connections, "_INTERVAL", 5.0)
    peer.answers = peer.old_path_works = True
    peer.slowness = 0.1
    ended: list[int] = []
    peer.connection.on_close = lambda: ended.append(peer.connection.released)
    await peer.run()
    assert not peer.dialled
    assert ended


async def test_a_pinged_connection_is_not_taken_for_one_that_answers(peer: Peer) -> None:
    """An idle one is pinged when another becomes silent, and has the same dead path."""
    idle = StubConnection(silent=False)
    idle.is_pinged = True
    peer.connections.append(idle)
    running = asyncio.ensure_future(peer.run())
    await asyncio.sleep(0.1)
    assert not peer.connection.released
    idle.is_silent, peer.answers = True, True
    await running
    assert idle.closed
    assert peer.connection.closed
    assert peer.dialled


async def test_a_connection_that_becomes_silent_while_a_search_ends_is_watched_too(peer: Peer) -> None:
    answers: list[list[StubConnection]] = [[], [peer.connection]]
    peer.watch._pool.silent = lambda _: answers.pop(0) if answers else []  # type: ignore[method-assign, assignment, return-value]
    await peer.run()
    await asyncio.sleep(0)
    assert not answers


async def test_every_connection_is_doubted_when_a_local_address_changes(peer: Peer) -> None:
    peer.on_address()
    await asyncio.sleep(0)
    peer.local = EndpointAddress(b"own", (), ("10.0.0.2:7",))
    for _ in range(2):
        peer.on_address()
        await asyncio.sleep(0)
    assert peer.connection.doubts == 1


async def set_addresses(peer: Peer, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Give the machine these addresses, as the kernel reports them."""
    monkeypatch.setattr(silent_connections, "find_addresses", lambda: frozenset(addresses))
    if peer.watch._interfaces is None:
        peer.watch.watch_interfaces()
    peer.watch._on_interfaces()
    await asyncio.sleep(0)


async def test_every_connection_is_doubted_when_an_address_of_the_machine_changes(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before iroh says so. Not while the cable is unplugged, but when it is back."""
    doubts = []
    for addresses in (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.2"], [], ["10.0.0.2"]):
        await set_addresses(peer, monkeypatch, *addresses)
        doubts.append(peer.connection.doubts)
    assert doubts == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("addresses", "waits"), [(["10.0.0.2"], False), ([], True), (["10.0.0.1"], True), (["10.0.0.1", "fd00::1"], True)]
)
async def test_a_connection_whose_address_has_gone_gets_less_time_to_heal(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, addresses: list[str], waits: bool
) -> None:
    """When the peer answers over another one: a file transfer would wait. A cable that is back is no such case."""
    monkeypatch.setattr(silent_connections, "_HEAL", 3600.0)
    monkeypatch.setattr(silent_connections, "_HEAL_AFTER_MOVE", 0.0)
    await set_addresses(peer, monkeypatch, "10.0.0.1")
    await set_addresses(peer, monkeypatch)
    await set_addresses(peer, monkeypatch, *addresses)
    peer.old_path_works = True
    running = asyncio.ensure_future(peer.run())
    if waits:
        await peer.wait_healing(running)
        assert not peer.connection.closed
        peer.connection.is_silent = False
    await running
    assert peer.connection.closed is not waits


@pytest.mark.parametrize(
    ("address", "waits"), [(OLD, True), (NEW, False), ("[2001:db8::1]:7", True), ("https://relay.example/", True)]
)
async def test_a_connection_with_a_peer_that_answers_from_elsewhere_gets_less_time_to_heal(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, address: str, waits: bool
) -> None:
    """It has moved, and what it says about its end of the connection is lost."""
    monkeypatch.setattr(silent_connections, "_HEAL", 3600.0)
    monkeypatch.setattr(silent_connections, "_HEAL_AFTER_MOVE", 0.0)
    peer.old_path_works, peer.answers_from = True, address
    running = asyncio.ensure_future(peer.run())
    if waits:
        await peer.wait_healing(running)
        assert not peer.connection.closed
        peer.connection.is_silent = False
    await running
    assert peer.connection.closed is not waits


@pytest.mark.parametrize("outgoing", [True, False], ids=["dialled here", "dialled by the peer"])
@pytest.mark.parametrize("address", [OLD, NEW])
async def test_a_connection_gets_longer_to_heal_than_it_was_silent(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, address: str, outgoing: bool
) -> None:
    """Also if the peer answers from elsewhere: it has several addresses, or its router got another one earlier."""
    monkeypatch.setattr(silent_connections, "_HEAL", 0.0)
    monkeypatch.setattr(silent_connections, "_HEAL_AFTER_MOVE", 0.0)
    peer.connection.silent_since -= 600.0
    peer.connection.outgoing, peer.old_path_works, peer.answers_from = outgoing, True, address
    running = asyncio.ensure_future(peer.run())
    await peer.wait_healing(running)
    assert not peer.connection.closed
    peer.connection.is_silent = False
    await running
    assert not peer.connection.closed


async def test_a_connection_that_cannot_follow_a_moved_peer_is_closed_when_its_record_says_so(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a long silence."""
    monkeypatch.setattr(silent_connections, "_HEAL", 3600.0)
    peer.connection.silent_since -= 600.0
    peer.connection.outgoing, peer.old_path_works, peer.answers_from = True, True, NEW
    running = asyncio.ensure_future(peer.run())
    await peer.wait_healing(running)
    assert not peer.connection.closed
    peer.known = EndpointAddress(ENDPOINT, (), (NEW,))
    await running
    assert peer.connection.closed


async def test_a_path_is_not_dead_if_the_peer_dials_while_a_handshake_is_waited_for(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake of this daemon may go to an old address. After a long silence, the peer's own gets time to come."""
    monkeypatch.setattr(silent_connections, "_INTERVAL", 5.0)
    monkeypatch.setattr(silent_connections, "_HEAL", 3600.0)
    peer.connection.silent_since -= 2.0
    peer.answers = True
    running = asyncio.ensure_future(peer.run())
    await peer.is_probed.wait()
    peer.connections.append(StubConnection(silent=False))
    await peer.wait_healing(running)
    assert not peer.connection.closed
    assert not peer.dialled
    peer.connection.is_silent = False
    await running


async def test_a_connection_that_cannot_follow_a_moved_peer_is_closed_at_once(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This daemon has dialled it."""
    for name in ("_HEAL", "_HEAL_AFTER_MOVE"):
        monkeypatch.setattr(silent_connections, name, 3600.0)
    peer.old_path_works, peer.answers_from, peer.connection.outgoing = True, NEW, True
    await peer.run()
    assert peer.connection.closed
