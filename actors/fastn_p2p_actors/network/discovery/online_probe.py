"""The lookout for peers that are not online yet: at which endpoints they may appear, and how often those are asked.

A peer's daemon that is reached is asked once, and answers when the peer comes online. It is asked again only in case
it has forgotten, and a daemon that is not reached is dialled again, less and less often.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.tickets import Ticket

from ...runtime.loop_turns import in_turns
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.pool import ConnectionPool
from ..transport.endpoint import EndpointAddress
from .host_directory import HostDirectory
from .router import PeerRouter

__all__ = ["OnlineProbe"]

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 1.0
"""Seconds before an endpoint is tried again; doubled each time."""
_LONGEST_PAUSE: Final = 60.0
_LOOK_INTERVAL: Final = 0.25
"""Seconds between two looks at whether the host directory or the address book has changed."""
_MAX_DIALS: Final = 64
"""Endpoints that are dialled at the same time."""

Rest = Callable[[asyncio.Event, float], Awaitable[object]]


async def sleep_until_woken(stirred: asyncio.Event, seconds: float) -> None:
    """Until the time is over or the event is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stirred.wait()


class _ProbeTarget:
    """An endpoint through which a peer may come to speak."""

    __slots__ = ("address", "pause", "sequence", "stirred", "task")

    def __init__(self, address: EndpointAddress, sequence: int) -> None:
        self.address = address
        self.sequence = sequence
        """Of the newest record that names it; 0 without one."""
        self.pause = _FIRST_PAUSE
        self.stirred = asyncio.Event()
        """Something has happened that makes it worth another try."""
        self.task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def retry_now(self) -> None:
        self.pause = _FIRST_PAUSE
        self.stirred.set()


class _Search:
    """For one peer."""

    __slots__ = ("peer", "places")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        """What a program has called it: perhaps a ticket, which says where it is."""
        self.places: dict[bytes, _ProbeTarget] = {}


class OnlineProbe:
    """Sees to it that a peer shows itself as soon as it is online: over a connection, by a fresh introduction.

    Args:
        jitter: from 0 to 1, what a pause is varied by.
        rest: waits for an event, at most so many seconds.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        routes: PeerRouter,
        hosts: HostDirectory,
        book: AddressBook,
        *,
        jitter: Callable[[], float] = random.random,
        rest: Rest = sleep_until_woken,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._routes = routes
        self._hosts = hosts
        self._book = book
        self._jitter = jitter
        self._rest = rest
        self._searches: dict[bytes, _Search] = {}
        self._places: dict[bytes, dict[_ProbeTarget, None]] = {}
        """Those of all searches, by endpoint."""
        self._updating: asyncio.Task[None] | None = None
        self._dials = asyncio.Semaphore(_MAX_DIALS)
        self._timer: asyncio.TimerHandle | None = None
        self._seen: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self._searches)

    def watch(self, target: bytes, peer: str) -> None:
        """Look for the identity from now on; ``peer`` is what a program calls it by."""
        search = self._searches.get(target)
        if search is None:
            search = self._searches[target] = _Search(peer)
        else:
            if Ticket.is_ticket(peer):
                search.peer = peer
            for place in search.places.values():
                place.retry_now()
        if self._timer is None:
            self._seen = self._state()
            self._timer = self._loop.call_later(_LOOK_INTERVAL, self._look)
        self._update(target, search)

    def leave(self, target: bytes) -> None:
        """Nobody waits for it any more."""
        search = self._searches.pop(target, None)
        if search is not None:
            for place in search.places.values():
                self._leave(place)
        if not self._searches and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        for target in list(self._searches):
            self.leave(target)
        if self._updating is not None:
            self._updating.cancel()

    # ── what happens ─────────────────────────────────────────────────────────────────────────────

    def connected(self, connection: PeerConnection) -> None:
        """A connection stands: those that may be at its other end are asked for."""
        for place in list(self._places.get(connection.endpoint, ())):
            place.retry_now()

    def lost(self, connection: PeerConnection) -> None:
        """A connection has ended: its other end is tried again soon, at first."""
        if connection.remote_process:
            for place in list(self._places.get(connection.endpoint, ())):
                self._loop.call_later(self._varied(_FIRST_PAUSE), place.retry_now)

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_INTERVAL, self._look)
        state = self._state()
        if state != self._seen and (self._updating is None or self._updating.done()):
            self._seen = state
            self._updating = self._loop.create_task(self._update_all())

    async def _update_all(self) -> None:
        """All searches, a few in each turn of the loop: each reads files."""
        async for target, search in in_turns(list(self._searches.items())):
            if self._searches.get(target) is search:
                self._update(target, search)

    def _state(self) -> tuple[int, int]:
        return self._hosts.changed_at(), self._book.generation

    def _update(self, target: bytes, search: _Search) -> None:
        """Go to where it may be as far as is known now, and no longer to where nothing is known to be."""
        known = self._routes.known(target, search.peer)
        for candidate in known:
            self._go_to(target, search, candidate.address, candidate.sequence)
        for endpoint in search.places.keys() - {candidate.address.endpoint for candidate in known}:
            if self._pool.open_to(endpoint) is None:
                self._leave(search.places.pop(endpoint))
        for introductions in self._pool.introductions.at(target):
            connection = introductions.connection
            if connection is not None and connection.endpoint not in search.places:
                self._go_to(target, search, EndpointAddress(connection.endpoint, (), ()), 0)

    def _leave(self, place: _ProbeTarget) -> None:
        place.leave()
        places = self._places.get(place.address.endpoint)
        if places is not None:
            places.pop(place, None)
            if not places:
                del self._places[place.address.endpoint]

    def _go_to(self, target: bytes, search: _Search, address: EndpointAddress, sequence: int) -> None:
        place = search.places.get(address.endpoint)
        if place is None:
            place = search.places[address.endpoint] = _ProbeTarget(address, sequence)
            self._places.setdefault(address.endpoint, {})[place] = None
            place.task = self._loop.create_task(self._ask_at(target, place))
        elif sequence != place.sequence or address != place.address:  # lower where a clock was put right
            place.address, place.sequence = address, sequence
            place.retry_now()

    async def _ask_at(self, target: bytes, place: _ProbeTarget) -> None:
        while True:
            place.stirred.clear()
            try:
                connection = self._pool.open_to(place.address.endpoint)
                if connection is None or not connection.ready.done():
                    async with self._dials:
                        connection = await self._pool.connect(place.address)
                connection.ask_for(target)
            except P2PError as error:
                log.debug("looking for a peer at %s: %s", place.address.endpoint.hex()[:10], error)
            except Exception:
                log.exception("looking for a peer at %s", place.address.endpoint.hex()[:10])
            pause, place.pause = place.pause, min(2 * place.pause, _LONGEST_PAUSE)
            await self._rest(place.stirred, self._varied(pause))

    def _varied(self, seconds: float) -> float:
        return seconds * (0.75 + 0.5 * self._jitter())
