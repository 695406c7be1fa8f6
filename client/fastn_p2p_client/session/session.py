"""``Session``: one bidirectional byte stream with flow control, between a program and a handler at a peer.

A direction ends in one of three ways, and a reader always knows which: complete (``read`` returns ``b""``), reset by
the peer (``StreamReset`` with its code), or broken (``ConnectionLost``).

Flow control: a writer that is faster than its reader waits. Each process on the path buffers at most
``SESSION_WINDOW`` bytes per direction.

This module implements the session messages of the local protocol (``ipc.messages.data``) without any socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final, TypeAlias

from ..affinity import LoopBound, place_of_caller, running_loop, used_elsewhere
from ..errors import BadMessage, ConnectionLost, P2PError, SessionClosed, StreamReset
from ..ipc.messages import (
    Ack,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    WindowUpdate,
    encode,
)
from ..limits import CHUNK_COST, MAX_CHUNK, MAX_RESET_CODE, RESET_CLOSED, RESET_FAILED, RESET_LOST, SESSION_WINDOW
from ..peer import Peer

Payload: TypeAlias = bytes | memoryview
Send: TypeAlias = Callable[[bytes, Payload], object]
"""Sends header and payload of one message with the session's id. Raises P2PError when the connection has ended."""

_CHUNK: Final = encode(SessionData())
_EOF: Final = encode(EndOfStream())
_ACK: Final = encode(Ack())
_SMALLEST_WINDOW: Final = 4096
"""Bytes: the smallest window, however few the daemon asks for."""
_YIELD_EVERY: Final = 32
"""Number of writes without waiting after which ``write`` yields to other tasks."""


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
        closed: the session itself, from when the program has finished with it until both directions have ended.
    """

    __slots__ = ("closed", "opened", "reader", "writer")

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self.opened = opened
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.closed: object = None


def _reset_dropped(send: Send, outgoing: bool, incoming: bool, on_end: Callable[[], object]) -> None:
    """Reset the open directions of a session that the program has dropped without closing it."""
    with contextlib.suppress(P2PError):
        if outgoing:
            send(encode(ResetStream(RESET_LOST)), b"")
        if incoming:
            send(encode(StopSending(RESET_LOST)), b"")
    on_end()


class Session(LoopBound):
    """A byte stream each way between this program and a peer. ``connect`` opens one; session handlers are given one.

    One task may read while another one writes. A session belongs to the event loop and process in which it was opened:
    elsewhere its methods raise ``UsedElsewhere`` and send nothing.

    ::

        async with await client.connect("alice", peer, "FileTransfer", initial="report.pdf") as session:
            await session.copy_to(file)

    Leaving the ``async with`` block closes the session. An exception in the block resets it instead, so that the peer
    knows that the data is incomplete.

    Attributes:
        peer: the verified peer at the other end.
        protocol: name of the protocol that the session was opened with, for instance ``"FileTransfer"``.
        instance: name of the protocol's instance.
        bytes_read, bytes_written: bytes that the program has read and written so far.
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
    ) -> None:
        """For ``connect`` and for the dispatchers of handlers, not for programs.

        Args:
            credit: bytes that the caller takes at first, on the handler's side; None on the caller's side.
            window: bytes that this side takes before they are read; ``SESSION_WINDOW`` at most and by default.
            on_end: called once, when both directions have ended.
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
        self.bytes_read = 0
        self.bytes_written = 0
        self._on_end = on_end
        self._serving = credit is not None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when the session is open, or failed."""
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.waits = Waits(self.opened)
        # The reading direction
        self._chunks: deque[bytes] = deque()
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

    def __repr__(self) -> str:
        return f"<Session {self.protocol} ({self.instance}): {self.bytes_read} read, {self.bytes_written} written>"

    def __del__(self) -> None:
        if self._client is None or self._loop is None or self.is_over or self._is_finished:
            return
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop is being closed in another thread
                self._loop.call_soon_threadsafe(
                    _reset_dropped, self._send_message, not self._write_ended, not self._read_ended, self._on_end
                )
        message = f"unclosed {self!r}, opened at {self.opened_at}. Use `with`, or call close()"
        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def _is_finished(self) -> bool:
        """True if this program has finished with both directions."""
        return (self._eof_sent or self._write_error is not None) and (self._complete or self._read_error is not None)

    def _keep_alive(self) -> None:
        """Keep the session alive without the program until both directions have ended."""
        if self._client is not None and self._is_finished and not self.is_over:
            self.waits.closed = self

    def _set_client(self, client: LoopBound) -> None:
        """Bind the session to the client that has opened it. The stack must be that of the program."""
        self._client = client
        self.opened_at = place_of_caller()
        self._track()

    def _after_fork(self) -> None:
        self._loop = None

    @property
    def peer(self) -> Peer:
        """The verified peer at the other end.

        Raises:
            SessionClosed: the session never was open.
        """
        if self._peer is None:
            raise SessionClosed(what="peer was read before the session was open, or")
        return self._peer

    @property
    def is_over(self) -> bool:
        """True if both directions have ended."""
        return self._read_ended and self._write_ended

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        elif (
            here := running_loop()
        ) is self._loop and here is not None:  # not in a child that was forked inside the block
            self.abort(RESET_FAILED)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    async def read(self, limit: int = MAX_CHUNK) -> bytes:
        """Return the next bytes, at least one; ``b""`` when the peer has sent everything.

        Args:
            limit: maximum number of bytes.

        Raises:
            StreamReset: the peer has reset its direction, and the data is incomplete.
            ConnectionLost: a process or connection on the path has ended.
            SessionClosed: this program has closed the session or stopped reading.
            UsedElsewhere: the session belongs to another event loop or process.
            RuntimeError: another task is reading.
            ValueError: ``limit`` is less than 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, and a read returns at least one byte")
        self.accept()
        while not self._chunks:
            if self._read_error is not None:
                raise self._read_error
            if self._complete:
                return b""
            waits = self.waits
            if waits.reader is not None:
                raise RuntimeError("another task is reading from this session already")
            waits.reader = self.opened.get_loop().create_future()
            try:
                await waits.reader
            finally:
                waits.reader = None
        chunk, start = self._chunks[0], self._offset
        if len(chunk) - start > limit:
            part = chunk[start : start + limit]
            self._offset += limit
            self._credit_read_bytes(limit)
        else:
            self._chunks.popleft()
            part = chunk[start:] if start else chunk
            self._offset = 0
            self._credit_read_bytes(len(part) + CHUNK_COST)
        self.bytes_read += len(part)
        return part

    async def read_exactly(self, size: int) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            asyncio.IncompleteReadError: the peer has sent less and finished; ``partial`` has the bytes.
            StreamReset: the peer has reset its direction, and the data is incomplete.
            ConnectionLost: a process or connection on the path has ended.
            SessionClosed: this program has closed the session or stopped reading.
            UsedElsewhere: the session belongs to another event loop or process.
        """
        parts: list[bytes] = []
        left = size
        while left > 0:
            part = await self.read(left)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), size)
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the chunks until the peer has sent everything. Raises the errors of ``read``."""
        while chunk := await self.read():
            yield chunk

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    async def write(self, data: bytes | bytearray | memoryview, *, copy: bool = True) -> None:
        """Send bytes. Return when all of them have left this program, which waits for a slower reader.

        Args:
            data: bytes to send.
            copy: False to send a buffer without copying it. Its content must not change while a view of it exists;
                until then Python refuses to resize a ``bytearray`` (``BufferError``).

        Raises:
            StreamReset: the peer has stopped reading.
            ConnectionLost: a process or connection on the path has ended.
            SessionClosed: this program has closed the session or sent the end of its direction.
            UsedElsewhere: the session belongs to another event loop or process.
        """
        self.accept()
        rest = memoryview(bytes(data) if copy else data).cast("B")  # of bytes, bytes() makes no copy
        while rest:
            if self._eof_sent:
                raise SessionClosed(what="a write")
            if self._credit <= CHUNK_COST:
                await self._wait_writable()
                continue
            if self._write_error is not None:
                raise self._write_error
            part = rest[: min(MAX_CHUNK, self._credit - CHUNK_COST)]
            self._send(_CHUNK, part)
            self._credit -= len(part) + CHUNK_COST
            self.bytes_written += len(part)
            rest = rest[len(part) :]
            self._writes += 1
            if self._writes % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def send_eof(self) -> None:
        """Finish the writing direction: the peer's reader sees its end after all bytes. Reading goes on.

        A second call does nothing.

        Raises:
            StreamReset: the peer has stopped reading.
            ConnectionLost: a process or connection on the path has ended.
            SessionClosed: this program has closed the session.
            UsedElsewhere: the session belongs to another event loop or process.
        """
        self.accept()
        if self._write_error is not None:
            raise self._write_error
        self._send_end()

    async def wait_sent(self) -> None:
        """Wait until the writing direction has ended: after ``send_eof``, until everything has been passed on.

        Without ``send_eof`` it waits for an error. A program that has nothing to send learns in this way that the peer
        has gone.

        Raises:
            StreamReset: the peer has stopped reading.
            ConnectionLost: a process or connection on the path has ended.
            SessionClosed: this program has closed the session.
            UsedElsewhere: the session belongs to another event loop or process.
        """
        if (here := running_loop()) is not self._loop or here is None:
            raise self._used_elsewhere()
        while not self._write_ended and self._write_error is None:
            await self._wait_writable()
        if self._write_error is not None:
            raise self._write_error

    # ── both at once ─────────────────────────────────────────────────────────────────────────────

    async def copy_to(self, writer: Any) -> int:
        """Write everything that the peer sends to ``writer``, until the end. The writer is not closed.

        Args:
            writer: a binary file, an ``asyncio.StreamWriter``, or any object with a method ``write``. A file is written
                in a thread.

        Returns:
            The number of bytes.

        Raises:
            P2PError: the errors of ``read``.
            Exception: the exceptions of the writer.
        """
        from .copy import copy_to

        return await copy_to(self, writer)

    async def copy_from(self, reader: Any) -> int:
        """Send everything that ``reader`` has, then the end, as ``send_eof`` does. The reader is not closed.

        Args:
            reader: a binary file, an ``asyncio.StreamReader``, or any object with a method ``read``. A file is read in
                a thread.

        Returns:
            The number of bytes.

        Raises:
            P2PError: the errors of ``write``.
            Exception: the exceptions of the reader.
        """
        from .copy import copy_from

        return await copy_from(self, reader)

    async def copy_both(self, reader: Any, writer: Any) -> tuple[int, int]:
        """Copy both directions at once, from ``reader`` and to ``writer``, until both have ended.

        If one direction fails, the session is reset. The exception is that a peer which stops reading may go on
        sending.

        Args:
            reader: as for ``copy_from``.
            writer: as for ``copy_to``.

        Returns:
            The number of bytes sent, and the number of bytes received.

        Raises:
            P2PError: the errors of ``read`` and ``write``.
            Exception: the exceptions of reader and writer.
        """
        from .copy import copy_both

        return await copy_both(self, reader, writer)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """End both directions. Everything that was written is delivered; unread bytes are discarded.

        Returns when the daemon has all written bytes. It then delivers them even if this program ends. It is no error
        if the peer has closed the session first.

        Raises:
            StreamReset: the peer has stopped reading before it had everything.
            ConnectionLost: a process or connection on the path has ended before everything was passed on.
            UsedElsewhere: the session belongs to another event loop or process.
        """
        self.accept()
        self._send_end()
        self.stop_reading(RESET_CLOSED)
        with contextlib.suppress(P2PError):
            await self.wait_sent()
        error = self._write_error
        if isinstance(error, StreamReset) and (error.reset_code == RESET_CLOSED or not self.bytes_written):
            return
        if error is not None and not isinstance(error, SessionClosed):
            raise error

    def stop_reading(self, code: int = 0) -> bool:
        """Stop reading: the peer's ``write`` raises ``StreamReset`` with this code. Writing goes on.

        Args:
            code: code of the protocol's own, 0 to ``limits.MAX_RESET_CODE``.

        Returns:
            True if the peer is notified; False if its direction had ended already.

        Raises:
            UsedElsewhere: the session belongs to another event loop or process.
        """
        self.accept()
        notifies_peer = not self._read_ended and self._read_error is None and not self._complete
        if notifies_peer:
            self._send(encode(StopSending(code)))
        self._fail_reading(SessionClosed(what="a read"))
        return notifies_peer

    def reset(self, code: int = 0) -> None:
        """End both directions at once. The peer sees ``StreamReset`` with this code, and unread bytes are lost.

        Args:
            code: code of the protocol's own, 0 to ``limits.MAX_RESET_CODE``.

        Raises:
            UsedElsewhere: the session belongs to another event loop or process.
            ValueError: the code is out of range.
        """
        if not 0 <= code <= MAX_RESET_CODE:
            raise ValueError(f"a reset code is between 0 and {MAX_RESET_CODE}, not {code}")
        here = running_loop()
        if here is not self._loop and (here is not None or self._loop is None or self._loop.is_running()):
            raise self._used_elsewhere()
        self._accept()
        self.abort(code)

    def accept(self) -> None:
        """Accept the session, for handlers: the caller's ``connect`` returns. Reading and writing accept by themselves.

        A handler that raises before it accepts rejects the session: the caller's ``connect`` raises the same error. In
        the caller's own program this does nothing.

        Raises:
            UsedElsewhere: the session belongs to another event loop or process.
        """
        if (here := running_loop()) is not self._loop or here is None:
            raise self._used_elsewhere()
        if self._serving and not self.opened.done():
            self._accept()

    def _used_elsewhere(self) -> P2PError:
        return used_elsewhere("this session", self._pid, self._loop)

    def _accept(self) -> None:
        if self._serving and not self.opened.done():
            self.opened.set_result(None)
            self._send(encode(SessionOpened(self._window)))
            if self._aborted_with is not None:
                self._send(encode(ResetStream(self._aborted_with)))
                self._send(encode(StopSending(self._aborted_with)))

    # ── messages from the network process ────────────────────────────────────────────────────────

    def on_message(self, message: Message, payload: bytes) -> None:
        """Handle the next message with the session's id."""
        if type(message) is SessionData:
            self._on_chunk(payload)
        elif isinstance(message, WindowUpdate):
            self._credit = min(self._credit + max(message.size, 0), SESSION_WINDOW)
            self._wake_writer()
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
        elif isinstance(message, SessionOpened) and not self.opened.done():
            self._credit = message.credit
            self._wake_writer()
            self.opened.set_result(None)

    def set_peer(self, peer: Peer) -> None:
        """Set the peer once the network process has named it."""
        self._peer = peer

    def fail(self, error: P2PError) -> None:
        """End both directions with this error, unless they were complete."""
        if not self.opened.done():
            self.opened.set_exception(error)
        self._fail_reading(error)
        if self._write_error is None and not self._write_ended:
            self._write_error = error
        self._on_read_end()
        self._on_write_end()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _send(self, header: bytes, payload: Payload = b"") -> None:
        try:
            self._send_message(header, payload)
        except P2PError as error:
            self.fail(error)

    def _on_chunk(self, payload: bytes) -> None:
        if self._read_ended:
            return
        self._granted -= len(payload) + CHUNK_COST
        if self._granted < 0 or not payload:
            error = BadMessage(reason="session data beyond the window, or without bytes")
            self._send(encode(ErrorReply.of(error)))
            self.fail(error)
        elif self._read_error is None:
            self._chunks.append(payload)
            self._wake_reader()

    def _credit_read_bytes(self, cost: int) -> None:
        self._consumed += cost
        if self._consumed >= self._grant_at and not self._read_ended:
            self._granted += self._consumed
            self._send(encode(WindowUpdate(self._consumed)))
            self._consumed = 0

    async def _wait_writable(self) -> None:
        """Wait until the credit or the state of the writing direction has changed."""
        if self._write_error is not None:
            raise self._write_error
        if self.waits.writer is None:
            self.waits.writer = self.opened.get_loop().create_future()
        await asyncio.shield(self.waits.writer)

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

    def _on_stop(self, code: int) -> None:
        if not self._write_ended and self._write_error is None:
            self._write_error = error_for_reset_code(code)
            self._send(encode(ResetStream(code)))
            self._on_write_end()

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
        self._on_end()

    def _wake_reader(self) -> None:
        if self.waits.reader is not None and not self.waits.reader.done():
            self.waits.reader.set_result(None)

    def _wake_writer(self) -> None:
        writer, self.waits.writer = self.waits.writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)
