"""Connection pool: one connection per peer daemon, dialled once for all callers, closed when idle."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from heapq import nsmallest
from typing import Final

from iroh.iroh_ffi import Connection
from msgspec.structs import replace

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.limits import MAX_CALLS_PER_PEER, MAX_PAYLOAD

from ...runtime.process_setup import boot_ms
from ..transport.endpoint import EndpointAddress, NetworkEndpoint
from ..transport.peer_limits import PeerLimits
from ..transport.penalties import Penalties
from ..wire import messages as wire
from ..wire.messages import CLOSE_IDLE, CLOSE_REPLACED, CLOSE_SHUTDOWN, OLDEST_WIRE_VERSION, WIRE_VERSION
from .connection import PeerConnection
from .endpoint_dial import EndpointDial
from .events import ConnectionEvents
from .identity_exchange import Wants
from .payload_memory import PayloadMemory
from .peer_memory import PeerMemory
from .proven_identities import IntroductionRegistry
from .step_budget import StepBudget

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1024
"""Connections of this daemon. One more closes the one that has been idle longest."""
MAX_CONNECTIONS_PER_ENDPOINT: Final = 32
"""Connections with one endpoint. Both daemons may dial at once, and processes may restart; one more is refused."""
_IDLEST: Final = 32
"""Connections that are selected together as the idlest, so that all connections are searched once for as many."""
IDLE_TIMEOUT: Final = 300.0
"""Seconds without a call or session after which a connection is closed."""
SUPERSEDED_TIMEOUT: Final = 10.0
"""Seconds until an idle connection is closed, if calls use another connection to the same endpoint."""
_AT_ONCE: Final = 0.5
"""Seconds between two connections that the daemons may have opened at once, because neither saw that of the other."""
_HELLO_WAIT: Final = 0.5
"""Seconds to wait for the hello of a connection that the peer daemon has opened, before it is dialled all the same. Its
path may work in one direction only."""
_HELLO_EXPECTED: Final = 1.0
"""Seconds after which the hello of a connection is late. iroh has a path for it that may be dead."""
_IDLE_ANSWER: Final = 2.0
"""Seconds for the answer to the last ping of an idle connection, before it is closed."""
_SWEEP_INTERVAL: Final = 30.0
"""Seconds between searches for idle connections."""


class ConnectionPool:
    """Connection pool: all connections by endpoint.

    When two daemons dial each other at the same time, there are two connections. Both daemons then prefer the same one,
    and the other is closed once it is idle, so that no call is lost.

    A new call does not use a silent connection, over which it would wait for the peer daemon. It waits here, until that
    connection is heard again, another one answers, or the last one has ended and the endpoint is dialled anew.

    Args:
        endpoint: dials.
        owner: callbacks of every connection.
        introductions: proven identities of every endpoint.
        payloads: accounts of complete payloads.
        penalties: penalties of strangers whose connections were closed for abuse.
        wall: Unix time.
        jitter: a random number from 0 to 1, for the backoff.
        start: random bytes, made at each start of the daemon.
        started_ms: time of that start, in ``boot_ms``.

    Attributes:
        introductions: proven identities of every endpoint.
        wants: local identities that peer daemons wait for.
        own_endpoint: public key of the local endpoint.
        dials: handshakes that were started, for tests and ``status``.
        opened, accepted: connections that this daemon, or the peer daemon, has dialled, so far.
        ended_sent, ended_received: bytes of connections that have ended.
    """

    def __init__(
        self,
        endpoint: NetworkEndpoint,
        owner: ConnectionEvents[PeerConnection],
        *,
        introductions: IntroductionRegistry[PeerConnection] | None = None,
        payloads: PayloadMemory | None = None,
        penalties: Penalties | None = None,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        start: bytes = b"",
        started_ms: int = 0,
    ) -> None:
        self.introductions: IntroductionRegistry[PeerConnection] = introductions or IntroductionRegistry()
        self.wants = Wants()
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._owner = owner
        self._wall = wall
        self._jitter = jitter
        self.own_endpoint = endpoint.id
        self._connections: dict[bytes, list[PeerConnection]] = {}
        self._count = 0
        self._idlest: list[tuple[float, PeerConnection]] = []
        """Candidates for eviction, with the time of their last use. The idlest comes last."""
        self._dials: dict[bytes, tuple[EndpointDial, asyncio.Task[PeerConnection]]] = {}
        """Dials that run, by endpoint."""
        self._changes: dict[bytes, asyncio.Future[None]] = {}
        """Done when connections to an endpoint whose connections are silent have changed."""
        process = secrets.token_bytes(8)
        self._hello = wire.Hello(
            OLDEST_WIRE_VERSION,
            process,
            MAX_PAYLOAD,
            MAX_CALLS_PER_PEER,
            pauses=True,
            news=True,
            invitations=True,
            newest=WIRE_VERSION,
            replicas=True,
            start=start,
            owners=True,
        )
        self._started_ms = started_ms
        self._memory = PeerMemory(self._loop, payloads=payloads)
        self._limits = PeerLimits()
        self._penalties = penalties or Penalties()
        self._budget = StepBudget(self._loop)
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.dials = 0
        self.opened = self.accepted = 0
        self.ended_sent = self.ended_received = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_draining(self) -> bool:
        """Return whether new connections should wait, because QUIC still keeps much for ended ones."""
        return self._memory.is_draining

    def has_network(self) -> bool:
        """Return whether the machine is in a network, as far as the network mode uses one."""
        return self._endpoint.has_network()

    def all(self) -> list[PeerConnection]:
        """Return every connection, also those without a hello."""
        return [connection for group in self._connections.values() for connection in group]

    def open_to(self, endpoint: bytes) -> PeerConnection | None:
        """Return the connection that calls to this endpoint use now, or None if there is none."""
        group = self._connections.get(endpoint)
        return max(group, key=self._preference) if group else None

    def _preference(self, connection: PeerConnection) -> tuple[bool, bool, bool, float]:
        """Return the sort key of a connection; the highest is used.

        A ready connection wins, then one whose peer daemon answers, then one that the endpoint with the lower key has
        dialled, then the newest. The peer daemon chooses the same one.
        """
        lower_dialled = connection.outgoing == (self.own_endpoint < connection.endpoint)
        return connection.ready.done(), connection.answers, lower_dialled, connection.opened_at

    async def connect(self, address: EndpointAddress) -> PeerConnection:
        """Return the connection to this endpoint over which it answers. Dial it if there is no connection.

        Concurrent callers share the dial, and it tries the addresses and relays of each of them.

        Raises:
            PeerUnreachable: several attempts have failed.
            Overloaded: the pool is full, and every connection is in use.
        """
        while (found := self.open_to(address.endpoint)) is not None and found.ready.done():
            if found.answers:
                return found
            await asyncio.shield(self._changes.setdefault(address.endpoint, self._loop.create_future()))
        if found is not None and address.endpoint not in self._dials:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HELLO_WAIT):
                    await asyncio.shield(found.ready)
                    return found
        running = self._dials.get(address.endpoint)
        if running is None:
            dial = EndpointDial(address, self.open_path, self._jitter)
            running = self._dials[address.endpoint] = dial, self._loop.create_task(dial.run())
            running[1].add_done_callback(lambda done: self._on_dialled(address.endpoint, done))
        else:
            running[0].offer(address)
        return await asyncio.shield(running[1])

    def adopt(self, raw: Connection, *, outgoing: bool = False) -> PeerConnection:
        """Add a connection whose handshake is complete. It is closed at once if there are too many."""
        connection = PeerConnection(
            raw,
            self._owner,
            outgoing=outgoing,
            wall=self._wall,
            memory=self._memory,
            limits=self._limits,
            penalties=self._penalties,
            budget=self._budget,
        )
        group = self._connections.get(connection.endpoint, [])
        full = len(group) >= MAX_CONNECTIONS_PER_ENDPOINT
        if self._closed or full or (len(self) >= MAX_CONNECTIONS and not self._evict_idle()):
            connection.close(CLOSE_SHUTDOWN, "too many connections")
            return connection
        connection.share(self.introductions.of(connection.endpoint), self.wants)
        self._connections.setdefault(connection.endpoint, group).append(connection)
        self._count += 1
        if outgoing:
            self.opened += 1
        else:
            self.accepted += 1
        connection.start(replace(self._hello, age_ms=boot_ms() - self._started_ms))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
        log.info("connection with %s %s", connection.name, "opened" if outgoing else "accepted")
        return connection

    def on_hello(self, connection: PeerConnection) -> None:
        """A hello has arrived: close earlier connections with another process of the same endpoint, which has ended.

        If it is the same process, find out whether the earlier ones still work: it may have moved. It has, most
        probably, if it has dialled, because a daemon does not dial while a connection answers. News that was sent over
        the earlier ones may have been lost, so it is sent again.
        """
        for other in list(self._connections.get(connection.endpoint, ())):
            if other is connection:
                continue
            if other.remote_process not in (b"", connection.remote_process):
                other.close(CLOSE_REPLACED, "the peer's network process was restarted")
                continue
            connection.identities.repeat(other.identities)
            if connection.outgoing or connection.opened_at < other.opened_at + _AT_ONCE:
                other.doubt()
            else:
                other.question()
        if connection.endpoint in self._dials:
            self._dials[connection.endpoint][0].on_hello(connection)
        self._choose(connection.endpoint)

    def on_silent(self, connection: PeerConnection) -> None:
        """The peer daemon does not answer over this connection: use another one, and find out whether that works.

        One that was idle is not watched, and may have the same dead path.
        """
        for other in self._connections.get(connection.endpoint, ()):
            if other is not connection:
                other.question()
        self._choose(connection.endpoint)

    def on_recovered(self, connection: PeerConnection) -> None:
        """The peer daemon answers again over this connection."""
        self._choose(connection.endpoint)

    def on_known(self, connection: PeerConnection) -> None:
        """A known peer speaks over the connection: its next handshakes do not count for its network."""
        path, address, _ = connection.path()
        if path == "direct":
            self._penalties.on_known(address)

    def silent(self, endpoint: bytes) -> list[PeerConnection]:
        """Return the connections over which this endpoint does not answer."""
        return [each for each in self._connections.get(endpoint, ()) if each.is_silent]

    def unanswered(self, endpoint: bytes, path: str = "") -> list[PeerConnection]:
        """Return the connections over which this endpoint does not answer, or has not sent its hello for long.

        The doubtful ones are among them: iroh uses the same path for all.

        Args:
            path: address of a dead path. A connection over it without a hello is among them, however new it is.
        """
        before = self._loop.time() - _HELLO_EXPECTED
        return [
            each
            for each in self._connections.get(endpoint, ())
            if not each.answers
            and (each.ready.done() or each.opened_at < before or (path and each.path_now().address == path))
        ]

    def _choose(self, endpoint: bytes) -> None:
        """Route calls to this endpoint over the connection that both daemons prefer, if the peer daemon answers."""
        chosen = self.open_to(endpoint)
        self.introductions.of(endpoint).connection = chosen if chosen is not None and chosen.answers else None
        self._wake(endpoint)

    def _wake(self, endpoint: bytes) -> None:
        """Let those look again that wait for a change of the connections to this endpoint."""
        changed = self._changes.pop(endpoint, None)
        if changed is not None:
            changed.set_result(None)

    def remove(self, connection: PeerConnection) -> None:
        """Remove a connection that has ended."""
        group = self._connections.get(connection.endpoint)
        if group is not None and connection in group:
            group.remove(connection)
            self._count -= 1
            self.ended_sent += connection.sent
            self.ended_received += connection.received
            if group:
                self._choose(connection.endpoint)
            else:
                del self._connections[connection.endpoint]
                self.introductions.remove(connection.endpoint)
                self._wake(connection.endpoint)

    def close(self) -> None:
        """Close all connections, and accept none any more."""
        self._closed = True
        self._memory.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for _, task in self._dials.values():
            task.cancel()
        for connection in self.all():
            connection.close(CLOSE_SHUTDOWN, "the daemon is stopping")

    async def open_path(self, path: EndpointAddress) -> PeerConnection:
        """Open a connection over the addresses and the relay of ``path``, and wait for its hello.

        Raises:
            PeerUnreachable, ConnectionLost, TimeoutError: no connection, or no hello.
            Overloaded: the pool is full, and every connection is in use.
        """
        if len(self) >= MAX_CONNECTIONS and not self._evict_idle():
            raise Overloaded(what="connections in use", limit=MAX_CONNECTIONS)
        self.dials += 1
        connection = self.adopt(await self._endpoint.dial(path), outgoing=True)
        await asyncio.shield(connection.ready)
        return connection

    def _on_dialled(self, endpoint: bytes, done: asyncio.Task[PeerConnection]) -> None:
        self._dials.pop(endpoint, None)
        if not done.cancelled():
            done.exception()  # retrieved here; the callers that waited have raised it

    def _evict_idle(self) -> bool:
        """Close the connection that has been idle longest, strangers' first; return False if all are in use."""
        for _ in range(2):
            while self._idlest:
                used_at, connection = self._idlest.pop()
                if not connection.closed and not connection.in_flight and connection.used_at == used_at:
                    connection.close(CLOSE_IDLE, "idle, and another connection needs its place")
                    return True
            idle = (each for each in self.all() if not each.in_flight)
            found = nsmallest(_IDLEST, idle, key=lambda each: (each.introductions.has_known, each.used_at))
            self._idlest = [(each.used_at, each) for each in reversed(found)]
        return False

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        for connection in self.all():
            used = connection.introductions.connection in (connection, None)
            if not connection.in_flight and now - connection.used_at > (IDLE_TIMEOUT if used else SUPERSEDED_TIMEOUT):
                connection.ping()
                self._loop.call_later(_IDLE_ANSWER, self._close_idle, connection, now)
        if len(self) and not self._closed:
            self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)

    def _close_idle(self, connection: PeerConnection, since: float) -> None:
        """Close a connection that is idle at both ends: the peer daemon has answered a ping ``since``.

        While the link is cut, its calls may be on their way: then they wait, and QUIC ends what is dead.
        """
        if (
            not connection.closed
            and not connection.in_flight
            and connection.used_at < since <= connection.last_received_at
        ):
            connection.close(CLOSE_IDLE, "idle")
