"""Online probe: asks the endpoints at which an awaited peer may come online, with exponential backoff.

A daemon that is reached is asked once, and answers when the peer comes online. It is asked again only in case it has
forgotten the request. A daemon that is not reached is dialled again, less and less often, and so are the record sources
asked for newer addresses.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.peer_text import ticket_of
from fastn_p2p_client.retry import Backoff

from ...runtime.time_slices import in_time_slices
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.pool import ConnectionPool
from ..transport.endpoint import EndpointAddress
from .host_directory import HostDirectory
from .router import PeerRouter

log = logging.getLogger(__name__)

_FIRST_DELAY: Final = 1.0
"""Seconds before an endpoint is asked again; doubled each time."""
_LONGEST_DELAY: Final = 60.0
_CHECK_INTERVAL: Final = 0.25
"""Seconds between two checks of the host directory and the address book for changes."""
_MAX_DIALS: Final = 64
"""Number of endpoints that are dialled at the same time."""

Rest = Callable[[asyncio.Event, float], Awaitable[object]]


async def sleep_until_woken(wake: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()


class _ProbeTarget:
    """Endpoint at which an awaited peer may come online."""

    __slots__ = ("address", "backoff", "sequence", "task", "wake")

    def __init__(self, address: EndpointAddress, sequence: int) -> None:
        self.address = address
        self.sequence = sequence
        """Sequence of the newest record that names the endpoint; 0 without a record."""
        self.backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY, jitter=0)
        self.wake = asyncio.Event()
        """Set when another attempt is worthwhile."""
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Stop asking this endpoint."""
        if self.task is not None:
            self.task.cancel()

    def retry_now(self) -> None:
        """Ask again at once, and begin the backoff anew."""
        self.backoff.reset()
        self.wake.set()


class _AwaitedPeer:
    """Endpoints at which one awaited peer may come online."""

    __slots__ = ("lookup_backoff", "next_lookup", "peer", "targets")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        """Text by which a program named the peer: perhaps a ticket, which has addresses."""
        self.next_lookup = 0.0
        """Time at which the record sources are asked again."""
        self.lookup_backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY, jitter=0)
        self.targets: dict[bytes, _ProbeTarget] = {}


class OnlineProbe:
    """Asks the daemons of awaited peers for an introduction as soon as the peer is online.

    Args:
        look_up: asks the record sources for the records of an identity.
        jitter: returns a number from 0 to 1, by which each delay is varied.
        rest: waits for an event, at most so many seconds.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        router: PeerRouter,
        hosts: HostDirectory,
        book: AddressBook,
        *,
        look_up: Callable[[bytes], object] = lambda _: None,
        jitter: Callable[[], float] = random.random,
        rest: Rest = sleep_until_woken,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._router = router
        self._hosts = hosts
        self._book = book
        self._look_up = look_up
        self._jitter = jitter
        self._rest = rest
        self._awaited: dict[bytes, _AwaitedPeer] = {}
        self._targets: dict[bytes, dict[_ProbeTarget, None]] = {}
        """Targets of all awaited peers, by endpoint."""
        self._updating: asyncio.Task[None] | None = None
        self._dials = asyncio.Semaphore(_MAX_DIALS)
        self._timer: asyncio.TimerHandle | None = None
        self._checked_state: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        """Number of awaited peers."""
        return len(self._awaited)

    def watch(self, identity: bytes, peer: str) -> None:
        """Probe for the identity from now on. ``peer`` is the text by which a program named it."""
        awaited = self._awaited.get(identity)
        if awaited is None:
            awaited = self._awaited[identity] = _AwaitedPeer(peer)
        else:
            if ticket_of(peer) is not None:
                awaited.peer = peer
            for target in awaited.targets.values():
                target.retry_now()
        if self._timer is None:
            self._checked_state = self._state()
            self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check)
        self._update(identity, awaited)

    def unwatch(self, identity: bytes) -> None:
        """Stop probing for the identity, because no program waits for it any more."""
        awaited = self._awaited.pop(identity, None)
        if awaited is not None:
            for target in awaited.targets.values():
                self._remove_target(target)
        if not self._awaited and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Stop all probes."""
        for identity in list(self._awaited):
            self.unwatch(identity)
        if self._updating is not None:
            self._updating.cancel()

    def on_newer(self, identity: bytes) -> None:
        """A newer record of an identity was found."""
        awaited = self._awaited.get(identity)
        if awaited is not None:
            self._update(identity, awaited)

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    def on_connected(self, connection: PeerConnection) -> None:
        """Ask the peer daemon of a new connection for the peers that may be there."""
        for target in list(self._targets.get(connection.endpoint, ())):
            target.retry_now()

    def on_disconnected(self, connection: PeerConnection) -> None:
        """Begin the backoff of the endpoint anew, because its connection has ended."""
        if connection.remote_process:
            for target in list(self._targets.get(connection.endpoint, ())):
                self._loop.call_later(self._varied(_FIRST_DELAY), target.retry_now)

    def _check(self) -> None:
        self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check)
        now = self._loop.time()
        for identity, awaited in self._awaited.items():
            if now >= awaited.next_lookup:
                awaited.next_lookup = now + self._varied(awaited.lookup_backoff.next_delay())
                if self._router.open_to(identity) is None:
                    self._look_up(identity)
        state = self._state()
        if state != self._checked_state and (self._updating is None or self._updating.done()):
            self._checked_state = state
            self._updating = self._loop.create_task(self._update_all())

    async def _update_all(self) -> None:
        """Update every awaited peer, a few in each iteration of the event loop, because each reads files."""
        async for identity, awaited in in_time_slices(list(self._awaited.items())):
            if self._awaited.get(identity) is awaited:
                self._update(identity, awaited)

    def _state(self) -> tuple[int, int]:
        return self._hosts.changed_at(), self._book.generation

    def _update(self, identity: bytes, awaited: _AwaitedPeer) -> None:
        """Start probes of endpoints that are known now, and stop those of endpoints that are no longer known."""
        known = self._router.known(identity, awaited.peer)
        for candidate in known:
            self._add_target(identity, awaited, candidate.address, candidate.sequence)
        for endpoint in awaited.targets.keys() - {candidate.address.endpoint for candidate in known}:
            if self._pool.open_to(endpoint) is None:
                self._remove_target(awaited.targets.pop(endpoint))
        for introductions in self._pool.introductions.at(identity):
            connection = introductions.connection
            if connection is not None and connection.endpoint not in awaited.targets:
                self._add_target(identity, awaited, EndpointAddress(connection.endpoint, (), ()), 0)

    def _remove_target(self, target: _ProbeTarget) -> None:
        target.cancel()
        targets = self._targets.get(target.address.endpoint)
        if targets is not None:
            targets.pop(target, None)
            if not targets:
                del self._targets[target.address.endpoint]

    def _add_target(self, identity: bytes, awaited: _AwaitedPeer, address: EndpointAddress, sequence: int) -> None:
        target = awaited.targets.get(address.endpoint)
        if target is None:
            target = awaited.targets[address.endpoint] = _ProbeTarget(address, sequence)
            self._targets.setdefault(address.endpoint, {})[target] = None
            target.task = self._loop.create_task(self._probe(identity, target))
        elif sequence != target.sequence or address != target.address:  # lower after a clock was corrected
            target.address, target.sequence = address, sequence
            target.retry_now()

    async def _probe(self, identity: bytes, target: _ProbeTarget) -> None:
        while True:
            target.wake.clear()
            try:
                connection = self._pool.open_to(target.address.endpoint)
                if connection is None or not connection.ready.done():
                    async with self._dials:
                        connection = await self._pool.connect(target.address)
                connection.send_introduction_request(identity)
            except P2PError as error:
                log.debug("cannot ask the endpoint %s for a peer: %s", target.address.endpoint.hex()[:10], error)
            except Exception:
                log.exception("cannot ask the endpoint %s for a peer", target.address.endpoint.hex()[:10])
            await self._rest(target.wake, self._varied(target.backoff.next_delay()))

    def _varied(self, seconds: float) -> float:
        return seconds * (0.75 + 0.5 * self._jitter())
