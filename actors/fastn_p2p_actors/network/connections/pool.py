"""Connections to other daemons: one for each, dialled once however many ask, kept while they are used."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from heapq import nsmallest
from typing import Final

from iroh.iroh_ffi import Connection

from fastn_p2p_client.errors import ConnectionLost, Overloaded, PeerUnreachable
from fastn_p2p_client.limits import MAX_CALLS_PER_PEER, MAX_PAYLOAD

from ..transport.endpoint import (
    EndpointAddress,
    NetworkEndpoint,
)
from ..transport.peer_limits import PeerLimits
from ..wire import messages as wire
from ..wire.messages import (
    CLOSE_IDLE,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_REPLACED,
    CLOSE_SHUTDOWN,
    WIRE_VERSION,
)
from .connection import HELLO_TIMEOUT, PeerConnection
from .events import ConnectionEvents
from .identity_exchange import Wants
from .payload_memory import PayloadMemory
from .peer_memory import PeerMemory
from .proven_identities import IntroductionRegistry

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1024
MAX_CONNECTIONS_PER_ENDPOINT: Final = 32
"""Both ends may dial at once, and processes may be restarted; one more than this is refused."""
_IDLEST: Final = 32
"""Connections that are noted together as the idlest: looking through all of them is done once for so many."""
IDLE_TIMEOUT: Final = 300.0
"""Seconds without a call after which a connection is closed."""
SUPERSEDED_TIMEOUT: Final = 10.0
"""The same, where calls have another connection to the same endpoint."""
_SWEEP_INTERVAL: Final = 30.0
_RETRY_PAUSE: Final = 0.1
"""Seconds before the second attempt to reach an endpoint; doubles with jitter."""
_ATTEMPTS: Final = 3


class ConnectionPool:
    """All connections by endpoint.

    There are two to one endpoint when both sides have dialled at the same moment: both then come to use the same one,
    and the other is closed once it is idle, so that no call is lost.
    """

    def __init__(
        self,
        endpoint: NetworkEndpoint,
        owner: ConnectionEvents[PeerConnection],
        *,
        introductions: IntroductionRegistry[PeerConnection] | None = None,
        payloads: PayloadMemory | None = None,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
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
        """Candidates for making room, with when they were used last; the idlest comes last."""
        self._dialling: dict[bytes, asyncio.Task[PeerConnection]] = {}
        self._arrivals: dict[bytes, asyncio.Future[PeerConnection]] = {}
        """Where we dial: done when the other side has greeted us."""
        self._hello = wire.Hello(WIRE_VERSION, secrets.token_bytes(8), MAX_PAYLOAD, MAX_CALLS_PER_PEER, pauses=True)
        self._memory = PeerMemory(self._loop, payloads=payloads)
        self._limits = PeerLimits()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.dials = 0
        """Handshakes started, for tests and status."""

    def __len__(self) -> int:
        return self._count

    def all(self) -> list[PeerConnection]:
        return [connection for group in self._connections.values() for connection in group]

    def open_to(self, endpoint: bytes) -> PeerConnection | None:
        """The connection that calls to this endpoint take now, if one stands."""
        group = self._connections.get(endpoint)
        return max(group, key=self._preference) if group else None

    def _preference(self, connection: PeerConnection) -> tuple[bool, bool, float]:
        """The greatest is used: what is ready, then what the lower endpoint has dialled, then the newest.

        The other side comes to the same.
        """
        lower_dialled = connection.outgoing == (self.own_endpoint < connection.endpoint)
        return connection.ready.done(), lower_dialled, connection.opened_at

    async def connect(self, address: EndpointAddress) -> PeerConnection:
        """The connection to this endpoint, dialled if need be; everybody who asks meanwhile shares the attempt.

        Raises:
            PeerUnreachable: after several attempts.
            Overloaded: the pool is full of connections in use.
        """
        while True:
            found = self.open_to(address.endpoint)
            if found is not None:
                if not found.ready.done():
                    await asyncio.shield(found.ready)
                return found
            task = self._dialling.get(address.endpoint)
            if task is None:
                task = self._dialling[address.endpoint] = self._loop.create_task(self._dial(address))
                task.add_done_callback(lambda done: self._dialled(address.endpoint, done))
            return await asyncio.shield(task)

    def adopt(self, raw: Connection, *, outgoing: bool = False) -> PeerConnection:
        """Take over a connection whose handshake is done."""
        connection = PeerConnection(
            raw, self._owner, outgoing=outgoing, wall=self._wall, memory=self._memory, limits=self._limits
        )
        group = self._connections.get(connection.endpoint, [])
        full = len(group) >= MAX_CONNECTIONS_PER_ENDPOINT
        if self._closed or full or (len(self) >= MAX_CONNECTIONS and not self._evict_idle()):
            connection.close(CLOSE_SHUTDOWN, "too many connections")
            return connection
        connection.share(self.introductions.of(connection.endpoint), self.wants)
        self._connections.setdefault(connection.endpoint, group).append(connection)
        self._count += 1
        connection.start(self._hello)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
        log.info("connection with %s %s", connection.name, "opened" if outgoing else "accepted")
        return connection

    def on_hello(self, connection: PeerConnection) -> None:
        """Its hello has come: earlier connections with another process of the same endpoint are dead."""
        for other in list(self._connections.get(connection.endpoint, ())):
            if other is not connection and other.remote_process not in (b"", connection.remote_process):
                other.close(CLOSE_REPLACED, "the peer's network process was restarted")
        arrived = self._arrivals.get(connection.endpoint)
        if arrived is not None and not arrived.done():
            arrived.set_result(connection)
        self._choose(connection.endpoint)

    def _choose(self, endpoint: bytes) -> None:
        """Calls to this endpoint take from now on the connection that both sides prefer."""
        chosen = self.open_to(endpoint)
        self.introductions.of(endpoint).connection = chosen if chosen is not None and chosen.ready.done() else None

    def forget(self, connection: PeerConnection) -> None:
        """It has ended."""
        group = self._connections.get(connection.endpoint)
        if group is not None and connection in group:
            group.remove(connection)
            self._count -= 1
            if group:
                self._choose(connection.endpoint)
            else:
                del self._connections[connection.endpoint]
                self.introductions.forget(connection.endpoint)

    def close(self) -> None:
        self._closed = True
        self._memory.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._dialling.values():
            task.cancel()
        for connection in self.all():
            connection.close(CLOSE_SHUTDOWN, "the daemon stops")

    async def _dial(self, address: EndpointAddress) -> PeerConnection:
        """A connection that we open, or one that the other side opens meanwhile."""
        arrived = self._arrivals[address.endpoint] = self._loop.create_future()
        attempts = self._loop.create_task(self._try_to_dial(address))
        attempts.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait((arrived, attempts), return_when=asyncio.FIRST_COMPLETED)
            return arrived.result() if arrived.done() else attempts.result()
        finally:
            del self._arrivals[address.endpoint]
            attempts.cancel()

    async def _try_to_dial(self, address: EndpointAddress) -> PeerConnection:
        pause = _RETRY_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._dial_once(address)
            except (PeerUnreachable, ConnectionLost, TimeoutError) as error:
                log.info("attempt %d to reach %s: %s", attempt, address.endpoint.hex()[:10], error)
                if attempt == _ATTEMPTS:
                    raise _unreachable(address, error) from error
            await asyncio.sleep(pause * (0.5 + self._jitter()))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _dial_once(self, address: EndpointAddress) -> PeerConnection:
        if len(self) >= MAX_CONNECTIONS and not self._evict_idle():
            raise Overloaded(what="connections in use", limit=MAX_CONNECTIONS)
        self.dials += 1
        connection = self.adopt(await self._endpoint.dial(address), outgoing=True)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await asyncio.shield(connection.ready)
        except TimeoutError:
            connection.close(CLOSE_PROTOCOL_ERROR, "no hello")
            raise
        return connection

    def _dialled(self, endpoint: bytes, done: asyncio.Task[PeerConnection]) -> None:
        self._dialling.pop(endpoint, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it

    def _evict_idle(self) -> bool:
        """Close the connection that has been idle longest, strangers' first; False when all are in use."""
        for _ in range(2):
            while self._idlest:
                used_at, connection = self._idlest.pop()
                if not connection.closed and not connection.in_flight and connection.used_at == used_at:
                    connection.close(CLOSE_IDLE, "making room")
                    return True
            idle = (each for each in self.all() if not each.in_flight)
            found = nsmallest(_IDLEST, idle, key=lambda each: (each.introductions.has_known, each.used_at))
            self._idlest = [(each.used_at, each) for each in reversed(found)]
        return False

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        for connection in self.all():
            used = connection is connection.introductions.connection
            if not connection.in_flight and now - connection.used_at > (IDLE_TIMEOUT if used else SUPERSEDED_TIMEOUT):
                connection.close(CLOSE_IDLE, "idle")
        if len(self) and not self._closed:
            self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)


def _unreachable(address: EndpointAddress, error: Exception) -> PeerUnreachable:
    reason = error.reason if isinstance(error, PeerUnreachable) else str(error) or "no hello came"
    return PeerUnreachable(peer=address.endpoint.hex()[:10], reason=reason)
