"""Silent connections: finds out which path to a peer daemon still works, and moves its calls there.

A connection is silent when the peer daemon does not answer a ping for half a second. There are two causes, which want
opposite things:

- The path is dead and another one works: the peer has moved, or UDP is blocked. Then the connection must be closed,
  because iroh sends everything over the dead path, also the handshakes of other connections, for 15 seconds.
- The link is cut. Then the connection must be kept: QUIC goes on when the link is back, and no call is lost.

They are told apart by two attempts each second:

- a handshake beside the silent connection, which iroh sends over the same path. If it is answered, the path works
  (again): calls use the new connection, also those in flight that may be repeated. The old one gets some seconds to
  heal for the others, because QUIC repeats lost packets after pauses that have become long;
- a probe of every other path: relays, and addresses of the newest record. If it is answered and another handshake
  over the old path is not, the old path is dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.retry import Backoff

from ...runtime.time_slices import in_time_slices
from ..connections.connection import PeerConnection
from ..connections.network_path import NetworkPath
from ..connections.pool import ConnectionPool
from ..transport.endpoint import EndpointAddress, NetworkEndpoint
from ..wire.messages import CLOSE_REPLACED
from .local_addresses import InterfaceWatch, find_addresses
from .record_finder import Lookup, RecordFinder
from .router import PeerRouter

log = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
"""Seconds between two attempts."""
_FIRST_INTERVAL: Final = 0.25
"""Seconds between the first two. Each later pause is twice as long: iroh notices an address of its own after 0.3 s."""
_DEBOUNCE: Final = 0.02
"""Seconds after a change of the machine's addresses during which further changes are waited for."""
_CONFIRMATION: Final = 0.2
"""Seconds for the handshake over the old path when another path has answered; or three round trips, or a quarter of the
time for which the connection is silent, if that is more. The longer it was, the more probably the link is just back."""
_LONGEST_CONFIRMATION: Final = 1.0
"""The same at most: the peer daemon dials as often."""
_CONTROLS: Final = 2
"""Answers over the other path that must come in the time of that handshake: on a busy machine each takes longer."""
_UNANSWERED_HANDSHAKES: Final = 3
"""Handshakes without an answer after which a path is dead although packets come over it: they get here, and those to
the peer are lost. Fewer could be lost by chance."""
_SOON: Final = 0.02
"""Seconds between two looks at a connection that was pinged."""
_HEAL: Final = 6.0
"""Seconds for a silent connection to heal when its path works again. More after a longer silence."""
_HEAL_MARGIN: Final = 1.0
"""Seconds by which they are more than the silence lasted. After a cut of 8 seconds, it took 6 and more."""
_HEAL_AFTER_MOVE: Final = 1.0
"""The same if this machine has lost an address, or the peer answers from another one: QUIC finds its path again within
half a second, or not at all."""
_SHORT_SILENCE: Final = 1.0
"""Seconds within which a daemon whose machine has moved is heard again, because it sees that and dials."""
_MOVE: Final = 3.0
"""Seconds after the loss of an address in which connections become silent by it."""
_HEAL_INTERVAL: Final = 0.1
"""Seconds between two looks at a silent connection while another one answers."""
_REFRESH: Final = 5.0
"""Seconds between two searches for newer records of the peer."""
_HANDSHAKES: Final = 3
"""Handshakes with one endpoint at the same time."""
_AT_ONCE: Final = 32
"""Endpoints that are looked for at the same time. When the local link is cut, every connection is silent."""
_IDENTITIES: Final = 4
"""Identities of the peer daemon whose records are looked at."""


class SilentConnections:
    """Endpoints of which a connection is silent.

    Args:
        endpoint: the local one.
        router: knows the addresses of peers.
        finder: looks for newer records.
    """

    def __init__(
        self, endpoint: NetworkEndpoint, pool: ConnectionPool, router: PeerRouter, finder: RecordFinder
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._pool = pool
        self._router = router
        self._finder = finder
        self._watches: dict[bytes, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._local = endpoint.address()
        self._addresses: frozenset[str] = frozenset()
        """Addresses of the machine."""
        self._last_addresses = self._addresses
        """The same, or the last ones if there are none now."""
        self._interfaces: InterfaceWatch | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._moved_at = -_MOVE
        """Time at which the machine has last lost an address."""
        endpoint.watch_address(self._on_address)

    def watch_interfaces(self) -> None:
        """Doubt every connection as soon as the machine's addresses change. iroh says so up to a second later."""
        self._addresses = self._last_addresses = find_addresses()
        self._interfaces = InterfaceWatch(self._on_interfaces, _DEBOUNCE)

    def close(self) -> None:
        """Stop looking for paths."""
        if self._interfaces is not None:
            self._interfaces.close()
        for task in (*self._watches.values(), *([self._doubting] if self._doubting is not None else [])):
            task.cancel()

    def on_silent(self, connection: PeerConnection) -> None:
        """The peer daemon does not answer over this connection any more."""
        self._pool.on_silent(connection)
        endpoint = connection.endpoint
        if endpoint not in self._watches:
            log.info("%s does not answer: looking for another path", connection.name)
            self._start(endpoint)

    def _start(self, endpoint: bytes) -> None:
        task = self._watches[endpoint] = self._loop.create_task(self._watch(endpoint))
        task.add_done_callback(lambda done: self._on_done(endpoint, done))

    def _on_done(self, endpoint: bytes, done: asyncio.Task[None]) -> None:
        self._watches.pop(endpoint, None)
        if done.cancelled():
            return
        if done.exception() is not None:
            log.error("the search for another path failed", exc_info=done.exception())
        elif self._pool.silent(endpoint):  # another one became silent while the task ended
            self._start(endpoint)

    # ── local addresses ──────────────────────────────────────────────────────────────────────────

    def _on_address(self) -> None:
        """Doubt every connection if the local addresses have changed."""
        before, self._local = self._local, self._endpoint.address()
        if self._local.addresses == before.addresses:
            return
        log.info("the local addresses have changed")
        self._doubt_soon()

    def _on_interfaces(self) -> None:
        """Doubt every connection if an address of the machine has come or gone.

        While there is none, a cable is unplugged, and the same addresses may come back with it.
        """
        before, self._addresses = self._addresses, find_addresses()
        if not self._addresses or self._addresses == before:
            return
        log.info("the addresses of this machine have changed: %s", ", ".join(sorted(self._addresses)))
        if self._last_addresses - self._addresses:
            self._moved_at = self._loop.time()
        self._last_addresses = self._addresses
        self._doubt_soon()

    def _doubt_soon(self) -> None:
        if self._doubting is not None:
            self._doubting.cancel()
        self._doubting = self._loop.create_task(self._doubt_all())

    async def _doubt_all(self) -> None:
        async for connection in in_time_slices(self._pool.all()):
            connection.doubt()

    # ── one endpoint ─────────────────────────────────────────────────────────────────────────────

    async def _watch(self, endpoint: bytes) -> None:
        """Look for a path until no connection with the endpoint is silent."""
        search = _PathSearch(self._endpoint, self._pool)
        answered_at: float | None = None
        refreshed_at = 0.0
        lookups: list[Lookup] = []
        try:
            while silent := self._pool.silent(endpoint):
                now = self._loop.time()
                chosen = self._pool.open_to(endpoint)
                if chosen is not None and chosen.is_pinged and not chosen.is_silent:
                    await asyncio.sleep(_SOON)  # it will soon be known whether it works
                    continue
                if chosen is not None and chosen.answers:
                    answered_at = answered_at or now
                    for connection in silent:
                        connection.requests.release_repeatable()
                    over = [
                        each for each in silent if now - answered_at >= self._time_to_heal(each, chosen, answered_at)
                    ]
                    _close(over, "the peer answers over another connection")
                    await asyncio.sleep(_HEAL_INTERVAL)
                    continue
                answered_at = None
                if now - refreshed_at >= _REFRESH:
                    refreshed_at = now
                    lookups = [*map(self._finder.look_up, silent[-1].introductions.shown(_IDENTITIES))]
                async with self._slots:
                    newer = [each.changed for each in lookups if not each.done]
                    is_dead = await search.run(self._address_of(silent[-1]), silent[-1], newer)
                if is_dead:
                    address, path = self._address_of(silent[-1]), silent[-1].path_now().address
                    search.close()
                    dead = self._pool.unanswered(endpoint, path)
                    _close(dead, "the path is dead, and the peer answers over another one")
                    await self._connect(address)
        except P2PError as error:
            log.info("%s was not reached over another path: %s", endpoint.hex()[:10], error)
        finally:
            search.close()

    def _time_to_heal(self, silent: PeerConnection, chosen: PeerConnection, answered_at: float) -> float:
        """Return the seconds for a silent connection, since the peer answers over another one.

        A peer that soon answers from elsewhere has moved; later, one whose record does not name the old address any
        more. No connection that this daemon has dialled follows it: in QUIC, only who has dialled may move (RFC 9000,
        section 9). Until it is closed, iroh sends what belongs to the other one to the old address, too.

        Else a link was cut. Another address proves nothing then: the peer may have several, and iroh does not say that
        QUIC has followed a router which got another one. The connection is heard after as long as it was silent at
        most, because QUIC doubles its pauses.
        """
        lasted = answered_at - silent.silent_since
        if _is_elsewhere(silent, chosen):
            if silent.outgoing and (lasted < _SHORT_SILENCE or not self._is_in_record(silent)):
                return 0.0
            if lasted < _SHORT_SILENCE:
                return _HEAL_AFTER_MOVE
        return _HEAL_AFTER_MOVE if answered_at < self._moved_at + _MOVE else max(_HEAL, lasted + _HEAL_MARGIN)

    def _is_in_record(self, connection: PeerConnection) -> bool:
        """Return whether a record of the peer daemon names the IP address over which it was reached."""
        host = _host(connection.path_now().address)
        return any(_host(address) == host for known in self._known(connection) for address in known.addresses)

    async def _connect(self, address: EndpointAddress) -> None:
        """Dial the endpoint. Return when it is connected, or another connection with it has become silent.

        A connection whose hello does not come is closed meanwhile: iroh would send every handshake over its dead path.

        Raises:
            P2PError: it was not reached.
        """
        dial = self._loop.create_task(self._pool.connect(address))
        try:
            while not dial.done():
                await asyncio.wait((dial,), timeout=_INTERVAL)
                if self._pool.silent(address.endpoint):
                    return
                if not dial.done():
                    _close(self._pool.unanswered(address.endpoint), "its hello does not come")
            dial.result()
        finally:
            dial.cancel()

    def _address_of(self, connection: PeerConnection) -> EndpointAddress:
        """Return all relays and addresses that are known of the peer daemon, those of its records first.

        This daemon's own relays come last: if that of the peer is gone, the peer may have chosen one of these.
        """
        in_use, in_use_relays = connection.addresses()
        known = self._known(connection)
        relays = dict.fromkeys(
            [relay for each in known for relay in each.relays] + [*in_use_relays, *self._endpoint.relays]
        )
        addresses = dict.fromkeys([address for each in known for address in each.addresses] + list(in_use))
        return EndpointAddress(connection.endpoint, tuple(relays), tuple(addresses))

    def _known(self, connection: PeerConnection) -> list[EndpointAddress]:
        """Return what the records of the peer daemon's identities say of it."""
        return [
            candidate.address
            for identity in connection.introductions.shown(_IDENTITIES)
            for candidate in self._router.known(identity, "")
            if candidate.address.endpoint == connection.endpoint
        ]


class _PathSearch:
    """Attempts to reach one endpoint beside its silent connection."""

    def __init__(self, endpoint: NetworkEndpoint, pool: ConnectionPool) -> None:
        self._endpoint = endpoint
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._handshakes: list[asyncio.Task[PeerConnection]] = []
        self._is_answered = False
        """True if a handshake over the old path has succeeded."""
        self._probe: asyncio.Task[bool] | None = None
        self._probed: EndpointAddress | None = None
        """Paths that the probe tries."""
        self._intervals = Backoff(_FIRST_INTERVAL, _INTERVAL, jitter=0)

    def close(self) -> None:
        """Cancel what still runs."""
        for task in (*self._handshakes, *([self._probe] if self._probe is not None else [])):
            task.cancel()
        self._handshakes.clear()
        self._probe = None

    async def run(
        self, address: EndpointAddress, silent: PeerConnection, newer: Sequence[asyncio.Future[None]]
    ) -> bool:
        """Try for a second at most, until a connection is open or a future says that there are newer addresses.

        Returns:
            Whether the path of the silent connection is dead.
        """
        ends = self._loop.time() + self._intervals.next_delay()
        used = silent.path_now()
        others = _without_path(address, used.address)
        self._is_answered = False
        self._handshake(address)
        if await self._probe_answers(others, ends, newer):
            return await self._is_dead(address, others, silent, used)
        await self._wait(newer, ends)
        return False

    async def _is_dead(
        self, address: EndpointAddress, others: EndpointAddress, silent: PeerConnection, used: NetworkPath
    ) -> bool:
        """Return whether no handshake over the old path is answered, now that the peer daemon is known to answer.

        On a busy machine everything takes longer, so the other paths are timed once more beside each handshake.
        """
        lasted = self._loop.time() - silent.silent_since
        confirmation = max(_CONFIRMATION, 3 * (used.rtt_ms or 0) / 1000, min(lasted / 4, _LONGEST_CONFIRMATION))
        for _ in range(_UNANSWERED_HANDSHAKES):
            received = silent.received_datagrams(used.address)
            began = self._loop.time()
            self._handshake(address)
            answers = [await self._probe_answers(others, began + _INTERVAL) for _ in range(_CONTROLS)]
            await self._wait((), began + confirmation)
            if self._is_answered or not silent.is_silent or not all(answers) or self._has_answer(address.endpoint):
                return False
            if silent.received_datagrams(used.address) == received:
                return True
        return True

    def _has_answer(self, endpoint: bytes) -> bool:
        """Return whether the peer daemon answers over a connection, perhaps one that it has dialled meanwhile."""
        chosen = self._pool.open_to(endpoint)
        return chosen is not None and chosen.answers

    async def _probe_answers(
        self, others: EndpointAddress, ends: float, newer: Sequence[asyncio.Future[None]] = ()
    ) -> bool:
        """Return whether the peer daemon answers over one of the other paths before any other event."""
        if self._probe is not None and self._probed != others:
            self._probe.cancel()
            self._probe = None
        self._probed = others
        probe = self._probe = self._probe or self._loop.create_task(self._endpoint.answers(others))
        await self._wait((probe, *newer), ends)
        if not probe.done():
            return False
        self._probe = None
        return probe.result()

    async def _wait(self, events: Sequence[asyncio.Future[Any]], ends: float) -> None:
        """Wait until a handshake has succeeded, an event has come, or the time is over."""
        while not self._is_answered and (seconds := ends - self._loop.time()) > 0:
            if any(event.done() for event in events):
                return
            if pending := [*self._handshakes, *events]:
                await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(seconds)
            self._count_handshakes()

    def _handshake(self, address: EndpointAddress) -> None:
        """Begin another handshake over the old path. The oldest makes room for it."""
        if len(self._handshakes) >= _HANDSHAKES:
            self._handshakes.pop(0).cancel()
        task = self._loop.create_task(self._pool.open_path(address))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._handshakes.append(task)

    def _count_handshakes(self) -> None:
        """Forget the handshakes that have ended, and note whether one has succeeded."""
        ended = [task for task in self._handshakes if task.done()]
        self._handshakes = [task for task in self._handshakes if not task.done()]
        if any(not task.cancelled() and task.exception() is None for task in ended):
            self._is_answered = True


def _without_path(address: EndpointAddress, used: str) -> EndpointAddress:
    """Return the address without the path that a connection uses."""
    return EndpointAddress(
        address.endpoint,
        tuple(relay for relay in address.relays if relay != used),
        tuple(each for each in address.addresses if each != used),
    )


def _is_elsewhere(silent: PeerConnection, chosen: PeerConnection) -> bool:
    """Return whether the peer daemon answers directly from another IP address of the same family."""
    old, new = silent.path_now(), chosen.path_now()
    if not old.path == new.path == "direct":
        return False
    hosts = _host(old.address), _host(new.address)
    return hosts[0] != hosts[1] and ("[" in hosts[0]) == ("[" in hosts[1])


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _close(connections: list[PeerConnection], reason: str) -> None:
    for connection in connections:
        connection.close(CLOSE_REPLACED, reason)
