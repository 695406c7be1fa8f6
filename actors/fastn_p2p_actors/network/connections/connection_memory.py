"""Memory that a peer makes this process hold over one connection: the account that ``PeerMemory`` checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..transport.iroh_patches import ended_connection
from .bulk_streams import BulkStreams
from .call_channel import CallChannel
from .keepalive import Keepalive
from .payload_memory import Account
from .peer_memory import PeerMemory
from .proven_identities import ProvenIdentities
from .session_pausing import SessionPausing

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, ConnectionStats

_DEFAULT_STREAMS: Final = 200
"""Streams that a peer may open before it is told another limit: iroh's default, 100 of either kind."""


class MemoryConnection(Protocol):
    """Members of the connection that its memory account uses."""

    closed: bool
    remote_process: bytes
    sent: int
    received: int

    def abort(self, reason: str) -> None: ...


class MemorySessions(Protocol):
    """Members of the sessions of a connection that its memory account uses."""

    ended_streams: int
    pausing: SessionPausing

    @property
    def open_streams(self) -> int: ...
    def backlog(self) -> int: ...
    def held(self) -> int: ...


class ConnectionMemory:
    """Memory account of one connection: the ``Holder`` that ``PeerMemory`` checks, pauses and aborts.

    Args:
        memory: accounts of all connections.

    Attributes:
        introductions: identities that have been proved to speak through the peer daemon's endpoint.
    """

    __slots__ = (
        "_accounts", "_bulk", "_channel", "_connection", "_keepalive", "_large_read", "_loop", "_memory", "_raw",
        "_sessions", "introductions",
    )  # fmt: skip

    def __init__(
        self,
        connection: MemoryConnection,
        raw: Connection,
        memory: PeerMemory,
        introductions: ProvenIdentities[Any],
        *,
        channel: CallChannel,
        bulk: BulkStreams,
        sessions: MemorySessions,
        keepalive: Keepalive,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._raw = raw
        self._memory = memory
        self.introductions = introductions
        self._channel = channel
        self._bulk = bulk
        self._sessions = sessions
        self._keepalive = keepalive
        self._accounts = (Account(memory.payloads.strangers), Account(memory.payloads.known))
        self._large_read = asyncio.Lock()
        """Held while a large payload of a stranger is read."""

    # ── reservations ─────────────────────────────────────────────────────────────────────────────

    @property
    def account(self) -> Account:
        """Account in which payloads that wait here for the peer are reserved from now on."""
        return self._accounts[self.introductions.has_known]

    def watch(self) -> None:
        """Have this account checked: the peer may send on one more stream."""
        if not self._connection.closed:
            self._memory.watch(self)

    def check_soon(self) -> None:
        """Have this account checked soon: the peer does not read as fast as it is written to."""
        self._memory.check_soon(self)

    def on_connection_lost(self) -> None:
        """Close the account, and release the connection: it has ended."""
        self._raw = ended_connection()
        self._memory.on_connection_closed(self)

    async def large_read_slot(self) -> Callable[[], None]:
        """Wait until one more large payload may be read. Call the returned function when it has been."""
        if self.known:
            return _do_nothing
        await self._large_read.acquire()
        try:
            done = await self._memory.large_read_slot()
        except asyncio.CancelledError:
            self._large_read.release()
            raise

        def release() -> None:
            done()
            self._large_read.release()

        return release

    def reserve_window(self) -> int:
        """Reserve the window of a session that the peer opens, and return its bytes. ``release_window`` must follow."""
        return self._memory.window_of_session(self)

    def release_window(self, window: int) -> None:
        """Release the window of a session that has ended."""
        self._memory.session_ended(window)

    def check_sessions(self) -> None:
        """Check that the peer may open one more session.

        Raises:
            Overloaded: strangers have too many sessions.
        """
        overload = self._memory.sessions_overload(self)
        if overload is not None:
            raise overload

    # ── Holder ───────────────────────────────────────────────────────────────────────────────────

    @property
    def greeted(self) -> bool:
        return bool(self._connection.remote_process)

    @property
    def known(self) -> bool:
        return self.introductions.has_known

    @property
    def received(self) -> int:
        return self._connection.received

    @property
    def sent(self) -> int:
        return self._connection.sent

    @property
    def held(self) -> int:
        return self._bulk.partial + self._channel.reply_bytes + self._sessions.held()

    @property
    def waiting(self) -> int:
        return sum(each.bytes for each in self._accounts)

    @property
    def open_streams(self) -> int:
        return self._bulk.open + self._sessions.open_streams

    @property
    def ended_streams(self) -> int:
        return self._bulk.ended + self._sessions.ended_streams

    def backlog(self) -> int:
        if not self.greeted:
            return _DEFAULT_STREAMS  # none is accepted before the hello, so any of them may have been opened
        return (not self._channel.has_read_all) + self._bulk.backlog() + self._sessions.backlog()

    def traffic(self) -> ConnectionStats:
        return self._raw.stats()

    def require_answer(self) -> None:
        self._keepalive.require_answer(self._loop.time())

    def pause_slow_sessions(self) -> None:
        self._sessions.pausing.pause_slow()

    def resume_sessions(self) -> None:
        self._sessions.pausing.resume_all()

    def resume_drained(self) -> None:
        self._sessions.pausing.resume_drained()

    def abort(self, reason: str) -> None:
        self._connection.abort(reason)


def _do_nothing() -> None:
    """Release a slot that a known peer does not need."""
