"""Opening of a session: from its request until the server accepts it, within a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fastn_p2p_client.errors import DeadlineExceeded, P2PError, PeerUnreachable
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.messages import OpenSession
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT

from ..discovery.search import TOO_SHORT, Search
from ..serving.registry import OnlineIdentity
from .relay import SessionRelay

if TYPE_CHECKING:
    from ..connections.connection import PeerConnection


class SessionOpener(Protocol):
    """Members of the session manager that an opening uses once its target is found."""

    def open_here(
        self, relay: SessionRelay, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes
    ) -> None: ...
    def open_at_peer(
        self,
        opening: Opening,
        connection: PeerConnection,
        source: OnlineIdentity,
        target: bytes,
        message: OpenSession,
        payload: bytes,
    ) -> None: ...


class Opening:
    """Session until the server has accepted it. For a local program's session it is also the ``Seeker`` of the target.

    Attributes:
        seconds: timeout of opening.
        hops: times that it went on to the binding's home.
        connecting_to, search, cancel: see ``Seeker``.
    """

    __slots__ = ("_deadlines", "_opener", "_payload", "cancel", "connecting_to", "hops", "relay", "search", "seconds")

    def __init__(
        self, opener: SessionOpener, deadlines: DeadlineTimer[Opening], relay: SessionRelay, seconds: float
    ) -> None:
        self._opener = opener
        self._deadlines = deadlines
        self._payload = b""
        self.relay = relay
        self.seconds = seconds
        self.hops = 0
        self.connecting_to = ""
        self.search: Search | None = None
        self.cancel: Callable[[], object] | None = None

    @property
    def done(self) -> bool:
        """True after the end of the session."""
        return self.relay.done

    def hold(self, payload: bytes) -> bool:
        """Keep the payload. Its memory is reserved already."""
        self._payload = payload
        return True

    def release_payload(self) -> bytes:
        """Return the payload that was kept, and keep it no longer."""
        payload, self._payload = self._payload, b""
        return payload

    def on_binding(self, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes) -> None:
        """Offer the session to a local process."""
        self._opener.open_here(self.relay, source, target, message, payload)

    def on_connection(
        self, connection: PeerConnection, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes
    ) -> None:
        """Open the session at the peer."""
        self._opener.open_at_peer(self, connection, source, target, message, payload)

    def on_error(self, error: P2PError) -> None:
        """Fail the session."""
        self.relay.fail(error)

    def close(self) -> None:
        """Stop its clock and the search for its target: the session is open, or has ended."""
        self._deadlines.discard(self)
        self._payload = b""
        if self.cancel is not None:
            self.cancel()


class OpeningDeadlines:
    """Deadlines of the sessions that are not open yet.

    Args:
        opener: opens a session once its target is found.
    """

    def __init__(self, opener: SessionOpener) -> None:
        self._loop = asyncio.get_running_loop()
        self._opener = opener
        self._timer: DeadlineTimer[Opening] = DeadlineTimer(self._loop, self._expire)

    def start(self, relay: SessionRelay, deadline_ms: int) -> Opening:
        """Start the clock of a session, which runs until it is open."""
        opening = Opening(self._opener, self._timer, relay, min(deadline_ms / 1000, MAX_CALL_TIMEOUT))
        self._timer.add(opening, self._loop.time() + opening.seconds)
        relay.at_opened.append(opening.close)
        relay.at_end.append(opening.close)
        return opening

    def close(self) -> None:
        """Stop the timer."""
        self._timer.close()

    def _expire(self, opening: Opening) -> None:
        """Fail a session at its deadline. If the peer could not be reached, the error says what was tried."""
        now, search = self._loop.time(), opening.search
        if opening.connecting_to and search is not None and search.seconds(now) >= TOO_SHORT:
            opening.on_error(PeerUnreachable(peer=opening.connecting_to, reason=search.words(now)))
        else:
            opening.on_error(DeadlineExceeded(seconds=round(opening.seconds, 3)))
