"""What both ends of a connection show each other: which identities speak through them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    DelegationExpired,
    DelegationNotYetValid,
    Overloaded,
    P2PError,
)
from fastn_p2p_client.keys import KEY_BYTES, PublicKey

from ...credentials import Delegation
from ..wire import messages as wire
from ..wire.framing import encode_frame
from .proven_identities import ProvenIdentities

__all__ = ["IdentityExchange", "Wants"]

log = logging.getLogger(__name__)

_MAX_REFUSED: Final = 64
"""Identities of a connection of which is noted that their introductions did not hold at the time."""
_MAX_WANTS: Final = 1024
"""Identities that one peer daemon has asked for and that are not online here; the oldest is forgotten for one more."""
_MAX_WANTS_IN_ALL: Final = 16_384
"""The same of all peer daemons. Once there are so many, each gets a new one only in place of its own oldest."""
_MAX_AWAITING: Final = 256
"""Requests of one connection that wait for an introduction which was given up here."""
_MAX_AWAITING_BYTES: Final = 256 * 1024
"""Their payloads, of one connection."""
_MAX_AWAITING_BYTES_IN_ALL: Final = 8 * 1024 * 1024
"""Their payloads, of all connections."""
_AWAIT_SECONDS: Final = 5.0
"""Seconds within which such an introduction must come again."""


class IdentityExchangeOwner(Protocol):
    """What a connection's introductions need of it."""

    @property
    def name(self) -> str: ...

    def introduction_for(self, identity: bytes) -> bytes | None:
        """Our own signed delegation for an identity that is online here."""
        ...

    def introduction_overload(self) -> Overloaded | None:
        """Count one more introduction; the error if it is one too many."""
        ...

    def check_introduction(self, delegation: bytes) -> Delegation:
        """The delegation, which holds. Raises CredentialError or BadMessage."""
        ...

    def on_introduced(self, identity: bytes) -> None:
        """The identity has shown that it is online at the other end, perhaps not for the first time."""
        ...

    def send(self, message: wire.WireMessage) -> None: ...


class Wants:
    """Identities that peer daemons wait for, and which connections wait for each: shared by all connections.

    Also counts what requests that wait for an introduction take of the memory.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[IdentityExchange, None]] = {}
        self._count = 0
        self.awaiting_bytes = 0

    def add(self, identity: bytes, who: IdentityExchange, own: dict[bytes, None]) -> None:
        """``own`` is what this connection waits for already."""
        self.discard(identity, who, own)
        if own and (len(own) >= _MAX_WANTS or self._count >= _MAX_WANTS_IN_ALL):
            self.discard(next(iter(own)), who, own)
        own[identity] = None
        self._waiting.setdefault(identity, {})[who] = None
        self._count += 1

    def discard(self, identity: bytes, who: IdentityExchange, own: dict[bytes, None]) -> None:
        if own.pop(identity, own) is None:
            self._count -= 1
            waiting = self._waiting[identity]
            del waiting[who]
            if not waiting:
                del self._waiting[identity]

    def came_online(self, identity: bytes) -> None:
        """Show one of our identities to all who have asked for it in vain."""
        for who in list(self._waiting.get(identity, ())):
            who.came_online(identity)


class _Awaiting:
    """Requests of one identity that wait for its introduction."""

    __slots__ = ("is_over", "requests", "size", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.requests: list[Callable[[], None]] = []
        self.size = 0
        self.timer = timer
        self.is_over = False
        """It has not come in time: none waits any more."""


class IdentityExchange:
    """That of one connection.

    Args:
        wall: Unix time.
        wants: shared by all connections.
    """

    def __init__(
        self,
        connection: IdentityExchangeOwner,
        introductions: ProvenIdentities,
        wall: Callable[[], float],
        wants: Wants | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._introductions = introductions
        self._wall = wall
        self._wants = wants or Wants()
        self._shown: dict[bytes, bytes] = {}
        self._wanted: dict[bytes, asyncio.Future[None]] = {}
        """What we have asked for."""
        self._asked_for: dict[bytes, None] = {}
        """What the other side wanted to be shown and could not be shown yet."""
        self._refused: dict[bytes, None] = {}
        """Identities whose last introduction did not hold yet, or no longer."""
        self._held_back = False
        """True if introductions came faster than they may."""
        self._awaiting: dict[bytes, _Awaiting] = {}
        self._awaiting_count = 0
        self._awaiting_bytes = 0

    def share(self, introductions: ProvenIdentities, wants: Wants) -> None:
        """Go on with the introductions of all connections with this endpoint, and the wants of all connections."""
        self._introductions = introductions
        self._wants = wants

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        for identity in list(self._asked_for):
            self._wants.discard(identity, self, self._asked_for)
        for identity in list(self._awaiting):
            self._take_awaiting(identity)
        wanted, self._wanted = self._wanted, {}
        for future in wanted.values():
            if not future.done():
                future.set_exception(ConnectionLost(what=f"the connection ({reason})"))

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────

    def pending_introduction(self, source: bytes) -> wire.Introduce | None:
        """What has to be said on the channel before a request of ``source``, if anything."""
        introduction = self._connection.introduction_for(source)
        if introduction is None or self._shown.get(source) is introduction:
            return None
        self._shown[source] = introduction
        return wire.Introduce(introduction)

    def frame_for(self, source: bytes) -> bytes:
        """What precedes a request of ``source`` on a stream of its own."""
        introduction = self._connection.introduction_for(source)
        return b"" if introduction is None else encode_frame(wire.Introduce(introduction))

    def on_want(self, identity: bytes) -> None:
        """The other side asks to be shown an identity."""
        if self._show(identity) or len(identity) != KEY_BYTES:
            return
        self._wants.add(identity, self, self._asked_for)

    def came_online(self, identity: bytes) -> None:
        """Show one of our identities to a side that has asked for it in vain."""
        if identity in self._asked_for:
            self._wants.discard(identity, self, self._asked_for)
            self._show(identity)

    def _show(self, identity: bytes) -> bool:
        """Whether there was anything to show: the identity is online here."""
        introduction = self._connection.introduction_for(identity)
        if introduction is not None:
            self._shown[identity] = introduction
            self._connection.send(wire.Introduce(introduction))
        return introduction is not None

    def show_again(self, identity: bytes) -> None:
        """The identity has a new delegation, because the clock was set: the earlier one may have been refused."""
        if identity in self._shown:
            self._show(identity)

    # ── theirs ───────────────────────────────────────────────────────────────────────────────────

    def check(self, source: bytes) -> None:
        """Raises why whoever asks has not been proved to speak through the other endpoint."""
        if not self._introductions.is_proven(source, self._wall()):
            raise self._introductions.rejection or BadMessage(reason="the caller has not been introduced")

    def awaits(self, source: bytes, size: int, go_on: Callable[[], None]) -> bool:
        """Return whether a request of ``source``, which may not speak, is to wait until it has been introduced again.

        That is so when introductions of this endpoint were given up here, or came faster than they may: the other side
        believes that it has shown who calls. ``go_on`` follows once the introduction has come, or has not come in time.
        """
        awaiting = self._awaiting.get(source)
        if (
            not (self._introductions.evictions or self._held_back)
            or len(source) != KEY_BYTES
            or self._introductions.is_proven(source, self._wall())
            or (awaiting is not None and awaiting.is_over)
            or self._awaiting_count >= _MAX_AWAITING
            or self._awaiting_bytes + size > _MAX_AWAITING_BYTES
            or self._wants.awaiting_bytes + size > _MAX_AWAITING_BYTES_IN_ALL
        ):
            return False
        if awaiting is None:
            timer = self._loop.call_later(_AWAIT_SECONDS, self._await_no_longer, source)
            awaiting = self._awaiting[source] = _Awaiting(timer)
            self._connection.send(wire.RequestIntroduction(source))
        awaiting.requests.append(go_on)
        awaiting.size += size
        self._count_awaiting(1, size)
        return True

    def _count_awaiting(self, requests: int, size: int) -> None:
        self._awaiting_count += requests
        self._awaiting_bytes += size
        self._wants.awaiting_bytes += size

    def _take_awaiting(self, identity: bytes) -> list[Callable[[], None]]:
        awaiting = self._awaiting.pop(identity, None)
        if awaiting is None:
            return []
        awaiting.timer.cancel()
        self._count_awaiting(-len(awaiting.requests), -awaiting.size)
        return awaiting.requests

    def _await_no_longer(self, identity: bytes) -> None:
        awaiting = self._awaiting[identity]  # stays until all have been answered, so that none waits again
        awaiting.is_over = True
        for go_on in awaiting.requests:
            go_on()
        self._take_awaiting(identity)

    async def want(self, identity: bytes) -> None:
        """Ask the other side to show that ``identity`` speaks through its endpoint; returns when it has.

        Raises:
            ConnectionLost: the connection has ended.
        """
        future = self._wanted.get(identity)
        if future is None:
            future = self._wanted[identity] = self._loop.create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._connection.send(wire.RequestIntroduction(identity))  # each time: it may have forgotten
        await asyncio.shield(future)

    def _refuse(self, identity: bytes, error: P2PError) -> None:
        """One of the two clocks is wrong. What waits for the identity ends; it is asked for when our clock is set."""
        self._refused.pop(identity, None)
        if len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[identity] = None
        wanted = self._wanted.pop(identity, None)
        if wanted is not None and not wanted.done():
            wanted.set_exception(error)
        if identity in self._awaiting:
            self._await_no_longer(identity)

    def clock_was_set(self) -> None:
        """Ask again for what did not hold by the clock as it was: the other side believes that it has shown it."""
        refused, self._refused = self._refused, {}
        for identity in refused:
            self._connection.send(wire.RequestIntroduction(identity))

    def on_introduce(self, message: wire.Introduce) -> None:
        """The other side shows that an identity speaks through its endpoint."""
        identity = self._introductions.identity_of(message.delegation)
        if identity is None:
            overload = self._connection.introduction_overload()
            if overload is not None:
                self._introductions.rejection = overload
                self._held_back = True
                return
            try:
                delegation = self._connection.check_introduction(message.delegation)
            except (CredentialError, BadMessage) as error:
                log.warning("introduction over %s refused: %s", self._connection.name, error)
                self._introductions.rejection = error
                if isinstance(error, DelegationExpired | DelegationNotYetValid):
                    self._refuse(bytes(PublicKey(error.identity)), error)
                return
            self._introductions.add(delegation, message.delegation)
            identity = delegation.identity
        elif not self._introductions.is_proven(identity, self._wall()):
            return  # it has ended meanwhile, or a newer one has taken its place
        wanted = self._wanted.pop(identity, None)
        if wanted is not None and not wanted.done():
            wanted.set_result(None)
        for go_on in self._take_awaiting(identity):
            go_on()
        self._connection.on_introduced(identity)
