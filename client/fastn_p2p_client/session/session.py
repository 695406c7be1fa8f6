"""Sessions: streams of bytes, both ways, between a program and a handler at a peer.

A direction ends in one of three ways, and a reader always knows which: complete (``read`` returns ``b""``), reset by
the other side (``StreamReset`` with its code), or broken (``ConnectionLost``). Whoever writes faster than the other
side reads waits: each process on the way takes ``SESSION_WINDOW`` bytes, and no more.

``Session`` speaks the session part of the client protocol, see ``messages``; it knows nothing of sockets.
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

from ..affinity import (
    LoopBound,
    place_of_caller,
    running_loop,
    used_elsewhere,
)
from ..errors import (
    BadMessage,
    ConnectionLost,
    P2PError,
    SessionClosed,
    StreamReset,
)
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
from ..limits import (
    CHUNK_COST,
    MAX_CHUNK,
    MAX_RESET_CODE,
    RESET_CLOSED,
    RESET_FAILED,
    RESET_LOST,
    SESSION_WINDOW,
)
from ..peer import Peer

__all__ = ["Session", "Waits", "error_for_reset_code"]

Payload: TypeAlias = bytes | memoryview
Send: TypeAlias = Callable[[bytes, Payload], object]
"""Takes header and payload of one message under the session's id. Raises P2PError when nobody can be told any more."""

_CHUNK: Final = encode(SessionData())
_EOF: Final = encode(EndOfStream())
_DONE: Final = encode(Ack())
_SMALLEST_WINDOW: Final = 4096
"""Bytes that a side takes at least, however few the daemon asks for."""
_TURNS: Final = 32
"""Writes that find credit after which other tasks get a turn all the same."""


def error_for_reset_code(code: int) -> P2PError:
    """What a reader or a writer is told when the other side has ended the session with this code."""
    if code == RESET_LOST:
        return ConnectionLost(what="the program at the other end of the session")
    return StreamReset(reset_code=code)


class Waits:
    """The futures that tasks wait for in one session. Holding them keeps those tasks alive, and the session with them.

    Attributes:
        opened: done when the session stands, with the reason when it never will.
        reader: done when something can be read. ``writer``: done at the next news for those who write.
        closed: the session itself from when the program has finished with it until both directions have ended.
    """

    __slots__ = ("closed", "opened", "reader", "writer")

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self.opened = opened
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.closed: object = None


def _drop(send: Send, outgoing: bool, incoming: bool, on_end: Callable[[], object]) -> None:
    """Tell the other side that a session is gone which was dropped with one or both directions open."""
    with contextlib.suppress(P2PError):
        if outgoing:
            send(encode(ResetStream(RESET_LOST)), b"")
        if incoming:
            send(encode(StopSending(RESET_LOST)), b"")
    on_end()


class Session(LoopBound):
    """One stream each way. It belongs to the event loop and the process in which it was opened: elsewhere its methods
    raise ``UsedElsewhere``, and nothing is sent. One task may read while another one writes.

    ::

        async with await client.connect("alice", peer, "FileTransfer", initial="report.pdf") as session:
            await session.copy_to(file)

    Leaving the ``async with`` block closes it; leaving it by an exception resets it, so that the other side can tell.

    Attributes:
        peer: who is at the other end, verified.
        protocol: what the session was opened for, for instance ``"FileTransfer"``; ``instance`` likewise.
        bytes_read, bytes_written: how far each direction has come, in bytes.
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
        """Made by ``connect`` and by whoever serves, not by programs.

        Args:
            credit: what the other side takes at first, on the side that serves; None on the side that has asked.
            window: bytes that this side takes before they are read, ``SESSION_WINDOW`` at most and by default.
            on_end: called once, when both directions have ended.
        """
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        """The one that it belongs to; None in a forked child."""
        self._pid = os.getpid()
        self._client: object = None
        """The client that has opened it, and that must live as long."""
        self.opened_at = ""
        """Where in the program: ``file:line``, for the one who forgets to close it."""
        self._send_message = send
        self._peer = peer
        self.protocol = protocol
        self.instance = instance
        self.bytes_read = 0
        self.bytes_written = 0
        self._on_end = on_end
        self._serving = credit is not None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when the session stands, with the reason when it never will."""
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.waits = Waits(self.opened)
        # What comes in
        self._chunks: deque[bytes] = deque()
        self._taken = 0
        """Bytes of the first chunk that have been read."""
        self._window = self._granted = min(max(window or SESSION_WINDOW, _SMALLEST_WINDOW), SESSION_WINDOW)
        self._grant_at = self._window // 4
        """Consumed bytes after which more are asked for: seldom enough to cost nothing, early enough to keep things
        going."""
        self._consumed = 0
        self._complete = False
        """All of it has come."""
        self._in_error: P2PError | None = None
        self._in_over = False
        # What goes out
        self._credit = credit or 0
        self._eof_sent = False
        self._out_error: P2PError | None = None
        self._out_over = False
        self._aborted_with: int | None = None
        """The code, when it was ended before it was accepted."""
        self._writes = 0

    def __repr__(self) -> str:
        return f"<Session {self.protocol} ({self.instance}): {self.bytes_read} read, {self.bytes_written} written>"

    def __del__(self) -> None:
        if self._client is None or self._loop is None or self.is_over or self._is_finished:
            return
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it ends in this moment
                self._loop.call_soon_threadsafe(
                    _drop, self._send_message, not self._out_over, not self._in_over, self._on_end
                )
        message = f"unclosed {self!r}, opened at {self.opened_at}. Use `with`, or call close()"
        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def _is_finished(self) -> bool:
        """Return whether the program on this side has finished with both directions."""
        return (self._eof_sent or self._out_error is not None) and (self._complete or self._in_error is not None)

    def _finish_alone(self) -> None:
        """Live on without the program until both directions have ended."""
        if self._client is not None and self._is_finished and not self.is_over:
            self.waits.closed = self

    def _belong_to(self, client: LoopBound) -> None:
        """Said by the client that has opened it, while the program waits for it."""
        self._client = client
        self.opened_at = place_of_caller()
        self._track()

    def _after_fork(self) -> None:
        self._loop = None

    @property
    def peer(self) -> Peer:
        if self._peer is None:
            raise SessionClosed(what="the peer is known once the session stands, not")
        return self._peer

    @property
    def is_over(self) -> bool:
        """Whether both directions have ended."""
        return self._in_over and self._out_over

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        elif (
            here := running_loop()
        ) is self._loop and here is not None:  # else a child that was forked in it leaves it
            self.abort(RESET_FAILED)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    async def read(self, limit: int = MAX_CHUNK) -> bytes:
        """The next bytes, at least one and at most ``limit``; ``b""`` when the other side has sent everything.

        Raises:
            StreamReset: the other side gave up; there is no more, and it was not all.
            ConnectionLost: a process or a connection on the way has died.
            SessionClosed: the session was closed on this side.
        """
        if limit < 1:
            raise ValueError(f"a read takes at least one byte, not {limit}: no bytes are the end")
        self.accept()
        while not self._chunks:
            if self._in_error is not None:
                raise self._in_error
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
        chunk, start = self._chunks[0], self._taken
        if len(chunk) - start > limit:
            part = chunk[start : start + limit]
            self._taken += limit
            self._credit_read_bytes(limit)
        else:
            self._chunks.popleft()
            part = chunk[start:] if start else chunk
            self._taken = 0
            self._credit_read_bytes(len(part) + CHUNK_COST)
        self.bytes_read += len(part)
        return part

    async def read_exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes.

        Raises:
            asyncio.IncompleteReadError: the stream was complete before; ``partial`` has what there was.
            StreamReset, ConnectionLost, SessionClosed: as ``read``.
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
        """Everything until the end, as it comes. Raises like ``read``."""
        while chunk := await self.read():
            yield chunk

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    async def write(self, data: bytes | bytearray | memoryview, *, copy: bool = True) -> None:
        """Send bytes; returns when all of them are on their way, which waits for a reader that is slower.

        Args:
            copy: False leaves the bytes of a buffer where they are. They must not change then until nobody has a view
                of them any more; until that, Python refuses to resize a ``bytearray`` (``BufferError``).

        Raises:
            StreamReset: the other side reads no more.
            ConnectionLost: a process or a connection on the way has died.
            SessionClosed: the session was closed, or its end was sent, on this side.
        """
        self.accept()
        rest = memoryview(bytes(data) if copy else data).cast("B")  # of bytes, bytes() makes no copy
        while rest:
            if self._eof_sent:
                raise SessionClosed(what="a write")
            if self._credit <= CHUNK_COST:
                await self._wait_writable()
                continue
            if self._out_error is not None:
                raise self._out_error
            part = rest[: min(MAX_CHUNK, self._credit - CHUNK_COST)]
            self._send(_CHUNK, part)
            self._credit -= len(part) + CHUNK_COST
            self.bytes_written += len(part)
            rest = rest[len(part) :]
            self._writes += 1
            if self._writes % _TURNS == 0:
                await asyncio.sleep(0)

    async def send_eof(self) -> None:
        """Say that everything has been sent. Reading goes on.

        Raises:
            StreamReset, ConnectionLost, SessionClosed: as ``write``; not when the end was sent before.
        """
        self.accept()
        if self._out_error is not None:
            raise self._out_error
        self._finish()

    async def wait_sent(self) -> None:
        """Returns once the end has been sent and everything before it passed on; at once when nobody reads any more.

        Raises:
            StreamReset, ConnectionLost, SessionClosed: as ``write``, but without writing: while there is nothing to
                send, this is how to learn that the other side has gone.
        """
        if (here := running_loop()) is not self._loop or here is None:
            raise self._elsewhere()
        while not self._out_over and self._out_error is None:
            await self._wait_writable()
        if self._out_error is not None:
            raise self._out_error

    # ── both at once ─────────────────────────────────────────────────────────────────────────────

    async def copy_to(self, writer: Any) -> int:
        """Everything until the end, into a binary file, an ``asyncio.StreamWriter``, or anything that has ``write``.

        Returns:
            The number of bytes. Raises like ``read``, and what the writer raises; the writer is not closed.
        """
        from .copy import copy_to

        return await copy_to(self, writer)

    async def copy_from(self, reader: Any) -> int:
        """Send everything from a binary file, an ``asyncio.StreamReader``, or anything that has ``read``; then the end.

        Returns:
            The number of bytes. Raises like ``write``, and what the reader raises; the reader is not closed.
        """
        from .copy import copy_from

        return await copy_from(self, reader)

    async def copy_both(self, reader: Any, writer: Any) -> tuple[int, int]:
        """``copy_from`` the reader and ``copy_to`` the writer at once, until both are at their end.

        Returns:
            The numbers of bytes sent and received. When one direction fails, the other is ended too.
        """
        from .copy import copy_both

        return await copy_both(self, reader, writer)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """End both directions: what was written is passed on whole, and what was not read is given up.

        Returns when the daemon has everything, which it then delivers even if this program ends.

        Raises:
            StreamReset, ConnectionLost: what was written has not been passed on. A side that has merely closed
                first is no error.
        """
        self.accept()
        self._finish()
        self.stop_reading(RESET_CLOSED)
        with contextlib.suppress(P2PError):
            await self.wait_sent()
        error = self._out_error
        if isinstance(error, StreamReset) and (error.reset_code == RESET_CLOSED or not self.bytes_written):
            return
        if error is not None and not isinstance(error, SessionClosed):
            raise error

    def stop_reading(self, code: int = 0) -> bool:
        """Read no more: the other side's ``write`` raises ``StreamReset`` with this code. Writing goes on.

        Returns:
            Whether the other side can be told; not when its direction is over already.
        """
        self.accept()
        can_tell = not self._in_over and self._in_error is None and not self._complete
        if can_tell:
            self._send(encode(StopSending(code)))
        self._give_up_reading(SessionClosed(what="a read"))
        return can_tell

    def reset(self, code: int = 0) -> None:
        """End both directions at once: the other side sees ``StreamReset`` with this code, and unread bytes are lost.

        Args:
            code: what it means is the protocol's affair; 0 to ``MAX_RESET_CODE``.
        """
        if not 0 <= code <= MAX_RESET_CODE:
            raise ValueError(f"a reset code is between 0 and {MAX_RESET_CODE}, not {code}")
        here = running_loop()
        if here is not self._loop and (here is not None or self._loop is None or self._loop.is_running()):
            raise self._elsewhere()
        self._accept()
        self.abort(code)

    def accept(self) -> None:
        """On the side that serves: let the other side's ``connect`` return. Reading and writing do it by themselves.

        Until then a handler may say no by raising, and ``connect`` raises the same at the other side.
        """
        if (here := running_loop()) is not self._loop or here is None:
            raise self._elsewhere()
        if self._serving and not self.opened.done():
            self._accept()

    def _elsewhere(self) -> P2PError:
        return used_elsewhere("this session", self._pid, self._loop)

    def _accept(self) -> None:
        if self._serving and not self.opened.done():
            self.opened.set_result(None)
            self._send(encode(SessionOpened(self._window)))
            if self._aborted_with is not None:
                self._send(encode(ResetStream(self._aborted_with)))
                self._send(encode(StopSending(self._aborted_with)))

    # ── what the other end of the hop says ───────────────────────────────────────────────────────

    def on_message(self, message: Message, payload: bytes) -> None:
        """The next message under the session's id."""
        if type(message) is SessionData:
            self._on_chunk(payload)
        elif isinstance(message, WindowUpdate):
            self._credit = min(self._credit + max(message.size, 0), SESSION_WINDOW)
            self._wake_writer()
        elif isinstance(message, EndOfStream):
            self._send(_DONE)
            self._complete = True
            self._in_ended()
            self._finish_alone()
        elif isinstance(message, ResetStream):
            self._give_up_reading(error_for_reset_code(message.code))
            self._in_ended()
        elif isinstance(message, StopSending):
            self._on_stop(message.code)
        elif isinstance(message, Ack):
            if self._eof_sent:
                self._out_ended()
        elif isinstance(message, ErrorReply):
            self.fail(message.error())
        elif isinstance(message, SessionOpened) and not self.opened.done():
            self._credit = message.credit
            self._wake_writer()
            self.opened.set_result(None)

    def set_peer(self, peer: Peer) -> None:
        """Who has turned out to be at the other end."""
        self._peer = peer

    def fail(self, error: P2PError) -> None:
        """Nothing goes on: both directions end with this error, unless they were complete."""
        if not self.opened.done():
            self.opened.set_exception(error)
        self._give_up_reading(error)
        if self._out_error is None and not self._out_over:
            self._out_error = error
        self._in_ended()
        self._out_ended()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _send(self, header: bytes, payload: Payload = b"") -> None:
        try:
            self._send_message(header, payload)
        except P2PError as error:
            self.fail(error)

    def _on_chunk(self, payload: bytes) -> None:
        if self._in_over:
            return
        self._granted -= len(payload) + CHUNK_COST
        if self._granted < 0 or not payload:
            error = BadMessage(reason="a chunk beyond the credit, or an empty one")
            self._send(encode(ErrorReply.of(error)))
            self.fail(error)
        elif self._in_error is None:
            self._chunks.append(payload)
            self._wake_reader()

    def _credit_read_bytes(self, cost: int) -> None:
        self._consumed += cost
        if self._consumed >= self._grant_at and not self._in_over:
            self._granted += self._consumed
            self._send(encode(WindowUpdate(self._consumed)))
            self._consumed = 0

    async def _wait_writable(self) -> None:
        """Returns after the next news for whoever writes."""
        if self._out_error is not None:
            raise self._out_error
        if self.waits.writer is None:
            self.waits.writer = self.opened.get_loop().create_future()
        await asyncio.shield(self.waits.writer)

    def _finish(self) -> None:
        if not self._eof_sent and self._out_error is None:
            self._eof_sent = True
            self._send(_EOF)
            self._finish_alone()

    def abort(self, code: int) -> None:
        """``reset`` with any code. Does not accept: where nothing was said yet, the other side is told once that is."""
        closed = SessionClosed(what="something was asked of it")
        if self._serving and not self.opened.done():
            self._aborted_with = code if self._aborted_with is None else self._aborted_with
        else:
            if not self._out_over:
                self._send(encode(ResetStream(code)))
            if not self._in_over:
                self._send(encode(StopSending(code)))
        if self._out_error is None:
            self._out_error = closed
        self._give_up_reading(closed)
        self._out_ended()

    def _on_stop(self, code: int) -> None:
        if not self._out_over and self._out_error is None:
            self._out_error = error_for_reset_code(code)
            self._send(encode(ResetStream(code)))
            self._out_ended()

    def _give_up_reading(self, error: P2PError) -> None:
        if not self._complete or isinstance(error, SessionClosed):  # what is complete is read whoever goes
            self._in_error = self._in_error or error
            self._chunks.clear()
        self._wake_reader()
        self._finish_alone()

    def _in_ended(self) -> None:
        self._wake_reader()
        if not self._in_over:
            self._in_over = True
            if self._out_over:
                self._both_ended()

    def _out_ended(self) -> None:
        self._wake_writer()
        if not self._out_over:
            self._out_over = True
            if self._in_over:
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
