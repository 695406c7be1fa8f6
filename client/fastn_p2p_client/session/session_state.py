"""State machine of one session: credit, windows, and the ends of both directions. It has no socket.

It implements the session messages of the local protocol (``ipc.messages.data``), for both ends of a session.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from ..affinity import LoopBound
from ..errors import BadMessage, ConnectionLost, P2PError, SessionClosed, StreamReset
from ..ipc.messages import (
    Ack,
    EndOfStream,
    ErrorReply,
    MemoryReady,
    Message,
    ResetStream,
    RouteSession,
    SessionData,
    SessionOpened,
    SessionRoute,
    SharedData,
    ShareMemory,
    StopSending,
    WindowUpdate,
    encode,
)
from ..limits import CHUNK_COST, RESET_LOST, SESSION_WINDOW
from ..peer import Peer
from .memory_request import MemoryRequest
from .shared_memory import MORE_CREDIT, WINDOW, Chunk, ReceiveDescriptor

Payload: TypeAlias = bytes | memoryview
Send: TypeAlias = Callable[[bytes, Payload], object]
"""Sends header and payload of one message with the session's id. Raises P2PError when the connection has ended."""

_EOF: Final = encode(EndOfStream())
_ACK: Final = encode(Ack())
_SMALLEST_WINDOW: Final = 4096
"""Bytes: the smallest window, however few the daemon asks for."""


def error_for_reset_code(code: int) -> P2PError:
    """Return the error that a reader or writer gets when the peer has ended the session with this code."""
    if code == RESET_LOST:
        return ConnectionLost(what="the program at the other end of the session")
    return StreamReset(reset_code=code)


class Waits:
    """The futures that tasks wait for in one session. An object that holds them keeps the tasks and the session alive.

    Attributes:
        opened: done when the session is open, or failed.
        reader: done when there is something to read.
        writer: done when the credit or the state of the writing direction has changed.
        request_id: id of the session. It and the next one are here because with 30 attributes the dicts of sessions
            share no keys, and each takes 1.3 KB more.
        sharing: the memory that the session shares.
        route: done when the network process has said where a worker may take the session.
        closed: the session itself, from when the program has finished with it until both directions have ended.
    """

    __slots__ = ("closed", "opened", "reader", "request_id", "route", "sharing", "writer")

    def __init__(self, opened: asyncio.Future[None], request_id: str) -> None:
        self.opened = opened
        self.request_id = request_id
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.closed: object = None
        self.sharing: MemoryRequest | None = None
        self.route: asyncio.Future[SessionRoute] | None = None


class SessionState(LoopBound):
    """State of one session, and the messages that change it.

    The program's methods are in ``Session``. A method that ends with an error of the connection calls ``fail``.
    """

    def __init__(
        self,
        send: Send,
        *,
        protocol: str,
        instance: str,
        peer: Peer | None = None,
        credit: int | None = None,
        window: int | None = None,
        on_end: Callable[[], object] = lambda: None,
        receive_descriptor: ReceiveDescriptor | None = None,
        request_id: str = "",
    ) -> None:
        """For ``connect`` and for the dispatchers of handlers, not for programs.

        Args:
            credit: bytes that the caller takes at first, on the handler's side; None on the caller's side.
            window: bytes that this side takes before they are read; ``SESSION_WINDOW`` at most and by default.
            on_end: called once, when both directions have ended.
            receive_descriptor: receives the descriptor of the memory that the network process has ready; None if it
                shares none.
            request_id: id of the session.
        """
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        """The event loop that it belongs to; None in a forked child."""
        self._pid = os.getpid()
        self._client: object = None
        """The client that has opened it; it has to live as long."""
        self.opened_at = ""
        """Place in the program, ``file:line``, for the warning about a session that was not closed."""
        self._send_message = send
        self._peer = peer
        self.protocol = protocol
        self.instance = instance
        self.bytes_read: int = 0
        self.bytes_written: int = 0
        self._on_end = on_end
        self._serving = credit is not None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when the session is open, or failed."""
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.waits = Waits(self.opened, request_id)
        # The reading direction
        self._chunks: deque[Chunk] = deque()
        """Views are of the shared memory."""
        self._offset = 0
        """Bytes of the first chunk that have been read already."""
        self._window = self._granted = min(max(window or SESSION_WINDOW, _SMALLEST_WINDOW), SESSION_WINDOW)
        self._grant_at = self._window // 4
        """Read bytes after which this side grants more: seldom enough to cost nothing, early enough that the peer does
        not wait."""
        self._consumed = 0
        self._complete = False
        """True once the peer has sent everything."""
        self._read_error: P2PError | None = None
        self._read_ended = False
        # The writing direction
        self._credit = credit or 0
        self._eof_sent = False
        self._write_error: P2PError | None = None
        self._write_ended = False
        self._aborted_with: int | None = None
        """Code of a session that was aborted before it was accepted."""
        self._writes = 0
        if receive_descriptor is not None:
            self.waits.sharing = MemoryRequest(receive_descriptor, self._send_share)

    @property
    def is_over(self) -> bool:
        """True if both directions have ended."""
        return self._read_ended and self._write_ended

    @property
    def has_input(self) -> bool:
        """True if ``read`` would not wait: there are bytes, or the peer's direction has ended."""
        return bool(self._chunks) or self._complete or self._read_error is not None

    @property
    def _is_finished(self) -> bool:
        """True if this program has finished with both directions."""
        return (self._eof_sent or self._write_error is not None) and (self._complete or self._read_error is not None)

    def _keep_alive(self) -> None:
        """Keep the session alive without the program until both directions have ended."""
        if self._client is not None and self._is_finished and not self.is_over:
            self.waits.closed = self

    # ── messages of this program ─────────────────────────────────────────────────────────────────

    def _send(self, header: bytes, payload: Payload = b"") -> None:
        try:
            self._send_message(header, payload)
        except P2PError as error:
            self.fail(error)

    def _accept(self) -> None:
        if self._serving and not self.opened.done():
            self.opened.set_result(None)
            self._send(encode(SessionOpened(self._window)))
            if self._aborted_with is not None:
                self._send(encode(ResetStream(self._aborted_with)))
                self._send(encode(StopSending(self._aborted_with)))

    def _send_end(self) -> None:
        if not self._eof_sent and self._write_error is None:
            self._eof_sent = True
            self._send(_EOF)
            self._keep_alive()

    def abort(self, code: int) -> None:
        """End both directions, as ``reset`` does, with any code and from any place.

        It does not accept the session: if it was not accepted yet, the peer is notified when it is.
        """
        closed = SessionClosed(what="a read or write")
        if self._serving and not self.opened.done():
            self._aborted_with = code if self._aborted_with is None else self._aborted_with
        else:
            if not self._write_ended:
                self._send(encode(ResetStream(code)))
            if not self._read_ended:
                self._send(encode(StopSending(code)))
        if self._write_error is None:
            self._write_error = closed
        self._fail_reading(closed)
        self._on_write_end()

    def request_route(self, token_hash: bytes) -> asyncio.Future[SessionRoute]:
        """Let the worker with a token take the session. Only an identity's process may, before it has accepted.

        Once the worker has it, the handler is cancelled.

        Args:
            token_hash: hash of the token.

        Returns:
            A future for where the worker has to connect. It stays without a result if the session ends first.
        """
        self.waits.route = route = self.opened.get_loop().create_future()
        self._send(encode(RouteSession(token_hash)))
        return route

    # ── messages from the network process ────────────────────────────────────────────────────────

    def on_message(self, message: Message, payload: bytes) -> None:
        """Handle the next message with the session's id."""
        if type(message) is SessionData:
            self._on_chunk(payload)
        elif type(message) is SharedData:
            self._on_shared_chunk(message)
        elif isinstance(message, WindowUpdate):
            self._credit = min(self._credit + max(message.size, 0), self._largest_window)
            self._wake_writer()
            if self.waits.sharing is not None:
                self.waits.sharing.carried(self.bytes_written)
        elif isinstance(message, EndOfStream):
            self._send(_ACK)
            self._complete = True
            self._on_read_end()
            self._keep_alive()
        elif isinstance(message, ResetStream):
            self._fail_reading(error_for_reset_code(message.code))
            self._on_read_end()
        elif isinstance(message, StopSending):
            self._on_stop(message.code)
        elif isinstance(message, Ack):
            if self._eof_sent:
                self._on_write_end()
        elif isinstance(message, ErrorReply):
            self.fail(message.error())
        elif isinstance(message, MemoryReady):
            if self.waits.sharing is not None:
                self.waits.sharing.on_ready(message.token)
        elif isinstance(message, SessionRoute):
            if self.waits.route is not None and not self.waits.route.done():
                self.waits.route.set_result(message)
        elif isinstance(message, SessionOpened) and not self.opened.done():
            self._credit = message.credit
            self._wake_writer()
            self.opened.set_result(None)

    def set_peer(self, peer: Peer, shares_memory: bool) -> None:
        """Set the peer once the network process has named it, and has said whether it has memory to share."""
        self._peer = peer
        if not shares_memory:
            self.waits.sharing = None

    def fail(self, error: P2PError) -> None:
        """End both directions with this error, unless they were complete."""
        if not self.opened.done():
            self.opened.set_exception(error)
        self._fail_reading(error)
        if self._write_error is None and not self._write_ended:
            self._write_error = error
        self._on_read_end()
        self._on_write_end()

    def _on_chunk(self, payload: Chunk) -> None:
        if self._read_ended:
            return
        self._granted -= len(payload) + CHUNK_COST
        if self._granted < 0 or not payload:
            self._on_bad_data("session data beyond the window, or without bytes")
        elif self._read_error is None:
            self._chunks.append(payload)
            self._wake_reader()

    def _on_bad_data(self, reason: str) -> None:
        error = BadMessage(reason=reason)
        self._send(encode(ErrorReply.of(error)))
        self.fail(error)

    def _on_stop(self, code: int) -> None:
        if not self._write_ended and self._write_error is None:
            self._write_error = error_for_reset_code(code)
            self._send(encode(ResetStream(code)))
            self._on_write_end()

    # ── memory that the session shares with the network process ──────────────────────────────────

    def _send_share(self, is_mapped: bool) -> None:
        if not self.is_over:
            self._send(encode(ShareMemory(is_mapped)))
            if is_mapped:
                self._granted += MORE_CREDIT
                self._grant_at = WINDOW // 4
                self._credit += MORE_CREDIT
                self._wake_writer()

    @property
    def _largest_window(self) -> int:
        sharing = self.waits.sharing
        return SESSION_WINDOW if sharing is None or sharing.memory is None else WINDOW

    def _on_shared_chunk(self, message: SharedData) -> None:
        memory = None if self.waits.sharing is None else self.waits.sharing.memory
        chunk = None if memory is None else memory.read(message.start, message.size)
        if chunk is None:
            self._on_bad_data("session data outside of the shared memory")
        else:
            self._on_chunk(chunk)

    # ── credit and ends ──────────────────────────────────────────────────────────────────────────

    def _credit_read_bytes(self, cost: int) -> None:
        self._consumed += cost
        if self._consumed >= self._grant_at and not self._read_ended:
            self._granted += self._consumed
            self._send(encode(WindowUpdate(self._consumed)))
            self._consumed = 0
            if self.waits.sharing is not None:
                self.waits.sharing.carried(self.bytes_read)

    async def _wait_writable(self) -> None:
        """Wait until the credit or the state of the writing direction has changed."""
        if self._write_error is not None:
            raise self._write_error
        if self.waits.writer is None:
            self.waits.writer = self.opened.get_loop().create_future()
        await asyncio.shield(self.waits.writer)

    def _fail_reading(self, error: P2PError) -> None:
        if not self._complete or isinstance(error, SessionClosed):  # complete data can still be read
            self._read_error = self._read_error or error
            self._chunks.clear()
        self._wake_reader()
        self._keep_alive()

    def _on_read_end(self) -> None:
        self._wake_reader()
        if not self._read_ended:
            self._read_ended = True
            if self._write_ended:
                self._both_ended()

    def _on_write_end(self) -> None:
        self._wake_writer()
        if not self._write_ended:
            self._write_ended = True
            if self._read_ended:
                self._both_ended()

    def _both_ended(self) -> None:
        self.waits.closed = None
        if self.waits.sharing is not None:
            self.waits.sharing.end()
            self.waits.sharing = None
        self._on_end()

    def _wake_reader(self) -> None:
        if self.waits.reader is not None and not self.waits.reader.done():
            self.waits.reader.set_result(None)

    def _wake_writer(self) -> None:
        writer, self.waits.writer = self.waits.writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)
