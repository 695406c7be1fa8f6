"""Streams of a connection's sessions: open them ahead of need, accept them, and match them with their announcements."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.limits import MAX_SESSIONS_PER_PEER

from ..transport.iroh_patches import ended_connection
from ..wire import messages as wire
from .connection_memory import ConnectionMemory
from .quic_stream import QuicStream
from .step_budget import ConnectionSteps

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

log = logging.getLogger(__name__)

_SPARE_AFTER: Final = 0.001
"""Seconds after which the spare stream is replaced. The session that has taken it is served first."""
_ANNOUNCED_WITHIN: Final = 5.0
"""Seconds within which a stream that has arrived must be announced. The peer announces it before it opens it."""
_MOST_ANNOUNCED: Final = MAX_SESSIONS_PER_PEER * 9 // 8
"""Streams that a peer may have announced and not opened yet: one for each session that it may open."""


class StreamConnection(Protocol):
    """Members of the connection that the streams of its sessions use."""

    closed: bool
    memory: ConnectionMemory
    steps: ConnectionSteps

    @property
    def name(self) -> str: ...
    def send(self, message: wire.WireMessage) -> None: ...
    def abort(self, reason: str) -> None: ...


class SessionStreams:
    """QUIC streams of the sessions of one connection, until each belongs to a session.

    The opener announces the number of a stream on the call channel. Announcement and stream travel separately, so
    either may arrive first.

    Args:
        connection: see ``StreamConnection``.
        raw: the connection of iroh.
        attach: called with an accepted stream and the number of the session that it was announced for.
    """

    def __init__(
        self, connection: StreamConnection, raw: Connection, attach: Callable[[QuicStream, int], None]
    ) -> None:
        self._connection = connection
        self._raw = raw
        self._attach = attach
        self._loop = asyncio.get_running_loop()
        self._announced: dict[int, int] = {}
        """Numbers of streams that were announced and have not arrived, with the number of their session."""
        self._unannounced: dict[int, QuicStream] = {}
        """Streams that have arrived and were not announced yet."""
        self._announcement_timers: dict[int, asyncio.TimerHandle] = {}
        self._spare: QuicStream | None = None
        """Stream that is ready for the next outgoing session."""
        self._opening_spare: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        """Held while a stream is opened, so that the spare one is used before any that is opened later: with a stream,
        QUIC opens all lower ones at the peer (RFC 9000, section 2.1), which waits for the announcement of each."""

    def __len__(self) -> int:
        """Return the number of streams that belong to no session yet."""
        return len(self._unannounced)

    def unread(self) -> list[RecvStream]:
        """Return the streams that have arrived and belong to no session yet."""
        return [stream.recv for stream in self._unannounced.values()]

    def on_connection_lost(self) -> None:
        """Release all streams: the connection has ended."""
        if self._opening_spare is not None:
            self._opening_spare.cancel()
        self._spare = None
        self._announced.clear()
        for timer in self._announcement_timers.values():
            timer.cancel()
        self._announcement_timers.clear()
        self._unannounced.clear()
        self._raw = ended_connection()

    async def open(self, number: int) -> QuicStream:
        """Open the stream of the session ``number``, and announce it.

        Raises:
            ConnectionLost, IrohError: the connection has ended.
        """
        self._loop.call_later(_SPARE_AFTER, self._replace_spare)
        async with self._opening:
            if self._connection.closed:
                raise ConnectionLost(what="the connection to the peer")
            spare, self._spare = self._spare, None
            stream = spare or await QuicStream.of(await self._raw.open_bi())
        self._connection.send(wire.SessionStream(number, stream.number))
        return stream

    def _replace_spare(self) -> None:
        """Open the stream of the next session in advance. The peer does not see it before the first byte."""
        if self._spare is None and self._opening_spare is None and not self._connection.closed:
            self._opening_spare = self._loop.create_task(self._open_spare())

    async def _open_spare(self) -> None:
        try:
            async with self._opening:
                self._spare = await QuicStream.of(await self._raw.open_bi())
        except IrohError as error:
            log.debug("cannot open a stream for the next session with %s: %s", self._connection.name, error.message())
        finally:
            self._opening_spare = None

    async def accept(self) -> None:
        """Accept every stream that the peer opens.

        Raises:
            IrohError: the connection has ended.
        """
        while True:
            if not self._connection.steps.spend():
                await self._connection.steps.wait()
            stream = await QuicStream.of(await self._raw.accept_bi())
            self._connection.memory.watch()
            if stream.number in self._announced:
                self._attach(stream, self._announced.pop(stream.number))
            else:
                self._unannounced[stream.number] = stream
                self._announcement_timers[stream.number] = self._loop.call_later(
                    _ANNOUNCED_WITHIN, self._on_announcement_timeout, stream.number
                )

    def on_announcement(self, message: wire.SessionStream) -> None:
        """Attach the stream that the peer announces, now or when it arrives."""
        stream = self._unannounced.pop(message.stream, None)
        if stream is not None:
            self._announcement_timers.pop(message.stream).cancel()
            self._attach(stream, message.id)
        elif len(self._announced) >= _MOST_ANNOUNCED:
            self._connection.abort(f"the peer has announced {_MOST_ANNOUNCED} streams that have not arrived")
        else:
            self._announced[message.stream] = message.id

    def _on_announcement_timeout(self, number: int) -> None:
        del self._announcement_timers[number]
        if number in self._unannounced:
            self._connection.abort(f"the peer has not announced a stream within {_ANNOUNCED_WITHIN:g} s")
