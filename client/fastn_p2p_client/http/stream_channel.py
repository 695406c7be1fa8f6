"""A channel with the methods of a session, for code that reads and writes with ``await``."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from ..errors import ConnectionLost, P2PError, SessionClosed
from ..limits import RESET_CLOSED
from ..peer import Peer
from ..session.session import Session
from .multiplexer import Multiplexer, SessionChannel

_CLOSE_SECONDS: Final = 5.0
"""Seconds that the other end has to end its direction of a channel that is closed."""


class StreamChannel(SessionChannel):
    """End of a channel that serves a caller. It goes on in a session of its own when the caller opens one for it.

    ``read``, ``write``, ``close`` and ``abort`` do what those of ``Session`` do.

    Attributes:
        peer: the verified peer at the other end.
        request_id: request id of the session, and the number of the channel.
    """

    def __init__(self, multiplexer: Multiplexer, number: int) -> None:
        super().__init__(multiplexer, number)
        self.peer: Peer = multiplexer.session.peer
        self.request_id = f"{multiplexer.session.request_id}/{number:x}"
        self._chunks: deque[bytes] = deque()
        self._is_complete = self._is_rest_moved = self._is_closed = self._wants_move = False
        self._error: P2PError | None = None
        self._own: Session | None = None
        self._unsent: list[bytes | memoryview] = []
        """Bytes for the session of its own, which came before those of the next ``write``."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return the next bytes; none when the caller has sent everything."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return b""
            if self._is_rest_moved and self._own is not None:
                return await self._own.read()
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        chunk = self._chunks.popleft()
        self.consume(len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send bytes. Return when all of them have left, which waits for a slower reader."""
        if self._is_closed:
            raise SessionClosed(what="a write")
        if self._own is None and self._error is None:
            self.send(data)
            data = b""
        while self.is_blocked and self._error is None:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self._error is not None:
            raise self._error
        if self._own is not None:
            while self._unsent:
                await self._own.write(self._unsent.pop(0))
            await self._own.write(data)

    async def close(self) -> None:
        """End both directions. Everything that was written is delivered; unread bytes are discarded."""
        self._is_closed = True
        self._chunks.clear()
        if self._own is not None:
            await self._own.close()
        elif self._error is None:
            self.end()
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.reset)

    def abort(self, code: int) -> None:
        """End both directions at once."""
        self._is_closed = True
        self._fail(SessionClosed(what="a read or write"))
        if self._own is not None:
            self._own.abort(code)
        self.reset()

    def move_to(self, session: Session) -> None:
        """Go on in a session that is open, once the other end does the same."""
        if self.is_over or self._is_closed or self._own is not None:
            session.abort(RESET_CLOSED)
            return
        self._own = session
        self._unsent = self.move()
        self._wake()

    # ── frames ───────────────────────────────────────────────────────────────────────────────────

    def on_data(self, data: bytes) -> None:
        if self._is_closed:
            self.consume(len(data))
        else:
            self._chunks.append(data)
            self._wake()

    def on_end(self) -> None:
        self._is_complete = True
        self._wake()

    def on_reset(self, error: Exception | None) -> None:
        self._fail(error if isinstance(error, P2PError) else ConnectionLost(what="the program at the other end"))

    def on_move(self) -> None:
        if not self._wants_move:
            self._wants_move = True
            self.want_move()

    def on_moved(self) -> None:
        self._is_rest_moved = True
        self._is_complete = False  # the end comes again in the other session
        self._wake()

    def on_credit(self) -> None:
        self._wake()

    def _fail(self, error: P2PError) -> None:
        self._error = self._error or error
        self._chunks.clear()
        self._wake()

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
