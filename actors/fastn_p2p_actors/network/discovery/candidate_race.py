"""Candidate race: tries the endpoints of a peer side by side, until a connection to one of them is open.

Idea: Happy Eyeballs (RFC 8305) for endpoints. The next attempt begins 250 ms after the last, or at once when all
before it have failed. So an endpoint that does not answer costs 250 ms and not the length of a timeout. The first two
daemons of an identity that several serve are tried at once: the one with the shorter round trip answers first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

from fastn_p2p_client.errors import ConnectionLost, P2PError, PeerOffline

from ..connections.connection import PeerConnection
from ..transport.endpoint import EndpointAddress
from ..transport.iroh_errors import ClosedByPeer, RefusedByPeer
from .record_finder import Lookup
from .resolver import Candidate
from .search import Search

_STAGGER: Final = 0.25
"""Seconds between the beginnings of two attempts (RFC 8305, section 5: Connection Attempt Delay)."""
_LOOKUP_DELAY: Final = 1.0
"""Seconds without a connection after which the sources are asked for newer addresses, beside the attempts."""


class CandidateRace:
    """Race for one peer. The first connection wins; the other attempts are cancelled.

    Sources are asked at once if no candidate is known, and later if none of them answers. An endpoint of which newer
    addresses are found meanwhile is tried again with them.

    Args:
        known: return the candidates that are known at the moment, the most promising first.
        attempt: open a connection to a candidate. Raises P2PError.
        look_up: begin to ask the sources for records.
        search: records the attempts.
        at_once: number of attempts that begin together.

    Attributes:
        errors: of the attempts that have failed.
    """

    def __init__(
        self,
        known: Callable[[], list[Candidate]],
        attempt: Callable[[Candidate], Awaitable[PeerConnection]],
        look_up: Callable[[], Lookup],
        search: Search,
        at_once: int = 1,
    ) -> None:
        self._at_once = at_once
        self._known = known
        self._attempt = attempt
        self._look_up = look_up
        self._search = search
        self._loop = asyncio.get_running_loop()
        self._lookup: Lookup | None = None
        self.errors: list[P2PError] = []
        self._tried: set[EndpointAddress] = set()
        self._running: set[asyncio.Task[PeerConnection | None]] = set()

    async def run(self) -> PeerConnection | None:
        """Return the first open connection. Return None if every attempt has failed and every source was asked."""
        lookup_at = self._loop.time() + _LOOKUP_DELAY
        next_start = 0.0
        try:
            while True:
                now = self._loop.time()
                waiting = self._untried()
                if waiting and (not self._running or now >= next_start):
                    self._start(waiting.pop(0))
                    next_start = now if len(self._tried) < self._at_once else now + _STAGGER
                if self._lookup is None and (not self._running or now >= lookup_at):
                    self._lookup = self._search.lookup = self._look_up()
                if not self._running and self._lookup is not None and self._lookup.done:
                    if not self._untried():
                        return None
                    continue
                wake_at = min(next_start if waiting else inf, lookup_at if self._lookup is None else inf)
                connection = await self._next_event(None if wake_at == inf else wake_at - now)
                if connection is not None:
                    return connection
        finally:
            for task in self._running:
                task.cancel()

    def _untried(self) -> list[Candidate]:
        return [each for each in self._known() if each.address not in self._tried]

    async def _next_event(self, seconds: float | None) -> PeerConnection | None:
        """Wait until an attempt has ended, a record was found, or the time is over. Return an open connection."""
        pending: set[asyncio.Future[Any]] = set(self._running)
        if self._lookup is not None and not self._lookup.done:
            pending.add(self._lookup.changed)
        done, _ = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done & self._running:
            self._running.discard(task)
            connection: PeerConnection | None = task.result()
            if connection is not None:
                return connection
        return None

    def _start(self, candidate: Candidate) -> None:
        self._tried.add(candidate.address)
        self._running.add(self._loop.create_task(self._try(candidate)))

    async def _try(self, candidate: Candidate) -> PeerConnection | None:
        attempt = self._search.begin(candidate.address, self._loop.time())
        try:
            connection = await self._attempt(candidate)
            if connection.closed:  # closed while this task waited to run
                raise ConnectionLost(what="the connection to the peer")
        except P2PError as error:
            self.errors.append(error)
            refused = isinstance(error, RefusedByPeer | ClosedByPeer)
            attempt.fail(_reason(error), self._loop.time(), refused=refused)
            return None
        attempt.succeed(self._loop.time())
        return connection


def _reason(error: P2PError) -> str:
    if isinstance(error, PeerOffline):
        return "its daemon answers, and the identity is not online there"
    if isinstance(error, ConnectionLost):  # nothing was sent over it, unlike its own text says
        return f"{error.what} ended at once"
    return getattr(error, "reason", "") or str(error)
