"""Dial of one endpoint: its paths are tried side by side, until a connection to it has its hello.

Idea: Happy Eyeballs (RFC 8305) for the paths of an endpoint. The next handshake begins 250 ms after the last: over the
direct addresses with the first relay, then over each further relay, then over the first relay alone. After that the
whole begins again, soon at first and then every 1.25 s, because QUIC repeats the packets of one handshake after 1, 3
and 7 s only: without new ones, a dial would notice seconds too late that the link is back.

iroh sends the first packets of a handshake to every address that it knows for the endpoint, also to those of another
handshake. A further handshake is a further chance for all of them, because the peer daemon replies only to the address
whose packet came first, and its replies may be lost there (see ``NetworkEndpoint``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastn_p2p_client.errors import ConnectionLost, PeerUnreachable
from fastn_p2p_client.retry import Backoff

from ..transport.endpoint import EndpointAddress
from ..transport.iroh_errors import ClosedByPeer, RefusedByPeer
from .connection import PeerConnection

log = logging.getLogger(__name__)

_STAGGER: Final = 0.25
"""Seconds between the beginnings of two handshakes (RFC 8305, section 5: Connection Attempt Delay)."""
_LONGEST_DELAY: Final = 1.25
"""Seconds between two rounds of handshakes at most, while none is answered. The first pause is as long as the stagger,
and each later one twice as long."""
_TIMEOUT: Final = 30.0
"""Seconds after which an endpoint that does not answer is given up."""
_ROUNDS: Final = 3
"""Rounds in which every handshake has failed, after which the endpoint is given up."""
_FIRST_BACKOFF: Final = 0.1
"""Seconds before the next round when every handshake has failed. Doubles, with jitter."""


class EndpointDial:
    """Dial of one endpoint, shared by its callers.

    Args:
        address: addresses and relays of the endpoint.
        open_path: opens a connection over the addresses and the relay it is given, and waits for its hello.
        jitter: a random number from 0 to 1, for the backoff.
    """

    def __init__(
        self,
        address: EndpointAddress,
        open_path: Callable[[EndpointAddress], Awaitable[PeerConnection]],
        jitter: Callable[[], float],
    ) -> None:
        self._address = address
        self._open_path = open_path
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._waiting = paths_of(address)
        """Paths that are tried next in this round."""
        self._next_start = 0.0
        self._delays = Backoff(_STAGGER, _LONGEST_DELAY, jitter=0)
        self._running: set[asyncio.Task[PeerConnection | None]] = set()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._arrived: PeerConnection | None = None
        self._has_failed = False
        """True after a handshake has failed since this was last looked at."""
        self._error: Exception = TimeoutError("no answer to the handshake")

    def offer(self, address: EndpointAddress) -> None:
        """Try the addresses and relays that are new at once, before the others."""
        addresses = tuple(each for each in address.addresses if each not in self._address.addresses)
        relays = tuple(each for each in address.relays if each not in self._address.relays)
        if not addresses and not relays:
            return
        known = self._address
        self._address = EndpointAddress(known.endpoint, relays + known.relays, addresses + known.addresses)
        self._waiting = [*paths_of(EndpointAddress(known.endpoint, relays, addresses)), *self._waiting]
        self._next_start = 0.0
        self._wake()

    def on_hello(self, connection: PeerConnection) -> None:
        """A connection with the endpoint has its hello, whichever daemon has dialled: the dial is over."""
        self._arrived = connection
        self._wake()

    def _wake(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)

    async def run(self) -> PeerConnection:
        """Return the first connection with a hello, and cancel the other handshakes.

        Raises:
            PeerUnreachable: every handshake has failed in three rounds, or none was answered for 30 seconds.
            Overloaded: the pool is full, and every connection is in use.
        """
        fails_at = self._loop.time() + _TIMEOUT
        backoff = Backoff(_FIRST_BACKOFF, jitter=0)
        failed_rounds = 0
        try:
            while self._arrived is None:
                now = self._loop.time()
                if now >= fails_at:
                    raise self._unreachable()
                if now >= self._next_start:
                    self._start()
                connection = await self._next_event(min(self._next_start, fails_at) - now)
                if connection is not None:
                    return connection
                if self._has_failed and not self._running:
                    self._has_failed = False
                    if self._waiting:
                        self._next_start = 0.0
                        continue
                    failed_rounds += 1
                    if failed_rounds == _ROUNDS:
                        raise self._unreachable() from self._error
                    self._next_start = self._loop.time() + backoff.next_delay() * (0.5 + self._jitter())
            return self._arrived
        finally:
            for task in self._running:
                task.cancel()

    def _start(self) -> None:
        """Begin the next handshake."""
        self._waiting = self._waiting or paths_of(self._address)
        path = self._waiting.pop(0)
        self._next_start = self._loop.time() + (_STAGGER if self._waiting else self._delays.next_delay())
        self._running.add(self._loop.create_task(self._try(path)))

    async def _next_event(self, seconds: float) -> PeerConnection | None:
        """Wait until a handshake has ended, something has changed, or the time is over. Return a connection."""
        pending: set[asyncio.Future[Any]] = {*self._running, self._changed}
        done, _ = await asyncio.wait(pending, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
        if self._changed.done():
            self._changed = self._loop.create_future()
        for task in done & self._running:
            self._running.discard(task)
            connection: PeerConnection | None = task.result()
            if connection is not None:
                return connection
        return None

    async def _try(self, path: EndpointAddress) -> PeerConnection | None:
        try:
            return await self._open_path(path)
        except (PeerUnreachable, ConnectionLost, TimeoutError) as error:
            log.info("a handshake with %s over %s failed: %s", path.endpoint.hex()[:10], _words(path), error)
            self._has_failed = True
            if path.addresses or not self._address.addresses:
                self._error = error
            return None

    def _unreachable(self) -> PeerUnreachable:
        error = self._error
        if isinstance(error, PeerUnreachable):
            reason = error.reason
        elif isinstance(error, ConnectionLost):  # nothing was sent over it, unlike its own text says
            reason = f"{error.what} ended before its hello"
        else:
            reason = str(error) or "no hello came"
        kind = RefusedByPeer if isinstance(error, RefusedByPeer | ClosedByPeer) else PeerUnreachable
        return kind(peer=self._address.endpoint.hex()[:10], reason=reason)


def paths_of(address: EndpointAddress) -> list[EndpointAddress]:
    """Return the paths to an endpoint, in the order in which they are tried. Each has one relay at most."""
    endpoint, relays = address.endpoint, address.relays
    paths = [EndpointAddress(endpoint, relays[:1], address.addresses)]
    paths += [EndpointAddress(endpoint, (relay,), ()) for relay in relays[1:]]
    if relays and address.addresses:
        paths.append(EndpointAddress(endpoint, relays[:1], ()))
    return paths


def _words(path: EndpointAddress) -> str:
    return ", ".join((*path.addresses, *(f"relay {relay}" for relay in path.relays))) or "no address"
