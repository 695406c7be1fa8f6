"""What both ends of a connection show each other: which identities speak through them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import BadMessage, ConnectionLost, CredentialError, Overloaded
from fastn_p2p_client.keys import KEY_BYTES

from ..credentials import Delegation
from .introductions import Introductions
from .wire import Wire, WireIntroduce, WireWant, frame

__all__ = ["Introducing"]

log = logging.getLogger(__name__)

_MAX_INTRODUCED: Final = 4096
"""Delegations that are remembered as verified."""
_MAX_WANTS: Final = 1024
"""Identities that the other side has asked for and that are not online here; the oldest is forgotten for one more."""


class Showing(Protocol):
    """What a connection's introductions need of it."""

    @property
    def name(self) -> str: ...

    def introduction_for(self, identity: bytes) -> bytes | None:
        """Our own signed delegation for an identity that is online here."""
        ...

    def check_introduction(self, delegation: bytes) -> Delegation:
        """The delegation, which holds. Raises CredentialError or BadMessage."""
        ...

    def on_introduced(self, identity: bytes) -> None:
        """The identity has shown that it is online at the other end, perhaps not for the first time."""
        ...

    def say(self, message: Wire) -> None: ...


class Introducing:
    """That of one connection.

    Args:
        wall: Unix time.
    """

    def __init__(self, connection: Showing, introductions: Introductions, wall: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._introductions = introductions
        self._wall = wall
        self._verified: dict[bytes, bytes] = {}
        """Whose they are, of delegations that have been verified here: sessions show them each time."""
        self._shown: dict[bytes, bytes] = {}
        self._wanted: dict[bytes, asyncio.Future[None]] = {}
        """What we have asked for."""
        self._asked_for: dict[bytes, None] = {}
        """What the other side wanted to be shown and could not be shown yet."""

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        wanted, self._wanted = self._wanted, {}
        for future in wanted.values():
            if not future.done():
                future.set_exception(ConnectionLost(what=f"the connection ({reason})"))

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────

    def due(self, source: bytes) -> WireIntroduce | None:
        """What has to be said on the channel before a request of ``source``, if anything."""
        introduction = self._connection.introduction_for(source)
        if introduction is None or self._shown.get(source) is introduction:
            return None
        self._shown[source] = introduction
        return WireIntroduce(introduction)

    def frame_for(self, source: bytes) -> bytes:
        """What precedes a request of ``source`` on a stream of its own."""
        introduction = self._connection.introduction_for(source)
        return b"" if introduction is None else frame(WireIntroduce(introduction))

    def on_want(self, identity: bytes) -> None:
        """The other side asks to be shown an identity."""
        if self._show(identity) or len(identity) != KEY_BYTES:
            return
        self._asked_for.pop(identity, None)
        if len(self._asked_for) >= _MAX_WANTS:
            del self._asked_for[next(iter(self._asked_for))]
        self._asked_for[identity] = None

    def came_online(self, identity: bytes) -> None:
        """Show one of our identities to a side that has asked for it in vain."""
        if identity in self._asked_for:
            del self._asked_for[identity]
            self._show(identity)

    def _show(self, identity: bytes) -> bool:
        """Whether there was anything to show: the identity is online here."""
        introduction = self._connection.introduction_for(identity)
        if introduction is not None:
            self._connection.say(WireIntroduce(introduction))
        return introduction is not None

    # ── theirs ───────────────────────────────────────────────────────────────────────────────────

    def check(self, source: bytes) -> None:
        """Raises why whoever asks has not been proved to speak through the other endpoint."""
        if not self._introductions.hold(source, self._wall()):
            raise self._introductions.rejection or BadMessage(reason="the caller has not been introduced")

    async def want(self, identity: bytes) -> None:
        """Ask the other side to show that ``identity`` speaks through its endpoint; returns when it has.

        Raises:
            ConnectionLost: the connection has ended.
        """
        future = self._wanted.get(identity)
        if future is None:
            future = self._wanted[identity] = self._loop.create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._connection.say(WireWant(identity))  # each time: it may have forgotten
        await asyncio.shield(future)

    def on_introduce(self, message: WireIntroduce) -> None:
        """The other side shows that an identity speaks through its endpoint."""
        identity = self._verified.get(message.delegation)
        if identity is None:
            try:
                delegation = self._connection.check_introduction(message.delegation)
                self._introductions.add(delegation)
            except (CredentialError, BadMessage, Overloaded) as error:
                log.warning("introduction over %s refused: %s", self._connection.name, error)
                self._introductions.rejection = error
                return
            identity = delegation.identity
            if len(self._verified) >= _MAX_INTRODUCED:
                self._verified.clear()
            self._verified[message.delegation] = identity
        elif not self._introductions.hold(identity, self._wall()):
            return  # it has ended meanwhile, or a newer one has taken its place
        wanted = self._wanted.pop(identity, None)
        if wanted is not None and not wanted.done():
            wanted.set_result(None)
        self._connection.on_introduced(identity)
