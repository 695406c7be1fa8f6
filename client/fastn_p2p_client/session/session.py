"""``Session``: one bidirectional byte stream with flow control, between a program and a handler at a peer.

A direction ends in one of three ways, and a reader always knows which: complete (``read`` returns ``b""``), reset by
the peer (``StreamReset`` with its code), or broken (``ConnectionLost``).

Flow control: a writer that is faster than its reader waits. Each process on the path buffers at most
``SESSION_WINDOW`` bytes per direction.

``SessionState`` has the state and the messages of the local protocol; ``Session`` adds the methods of programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final

from ..affinity import LoopBound, caller_location, running_loop, used_elsewhere
from ..errors import P2PError, SessionClosed, StreamReset
from ..ipc.messages import ResetStream, SessionData, SharedData, StopSending, encode
from ..limits import CHUNK_COST, MAX_CHUNK, MAX_RESET_CODE, RESET_CLOSED, RESET_FAILED, RESET_LOST
from ..peer import Peer
from .session_state import Send, SessionState
from .shared_memory import SMALLEST

_CHUNK: Final = encode(SessionData())
_YIELD_EVERY: Final = 32
"""Number of writes without waiting after which ``write`` yields to other tasks."""


def _reset_abandoned(send: Send, outgoing: bool, incoming: bool, on_end: Callable[[], object]) -> None:
    """Reset the open directions of a session that the program has dropped without closing it."""
    with contextlib.suppress(P2PError):
        if outgoing:
            send(encode(ResetStream(RESET_LOST)), b"")
        if incoming:
            send(encode(StopSending(RESET_LOST)), b"")
    on_end()


class Session(SessionState):
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
        request_id: name of the session in logs and errors of both sides. The opener may have chosen it, so it proves
            nothing; it is short and safe to print. Empty if the daemon is older.
        bytes_read, bytes_written: bytes that the program has read and written so far.
    """

    def __repr__(self) -> str:
        return f"<Session {self.protocol} ({self.instance}): {self.bytes_read} read, {self.bytes_written} written>"

    def __del__(self) -> None:
        if self._client is None or self._loop is None or self.is_over or self._is_finished:
            return
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop is being closed in another thread
                self._loop.call_soon_threadsafe(
                    _reset_abandoned, self._send_message, not self._write_ended, not self._read_ended, self._on_end
                )
        message = f"unclosed {self!r}, opened at {self.opened_at}. Use `with`, or call close()"
        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def _set_client(self, client: LoopBound) -> None:
        """Bind the session to the client that has opened it. The stack must be that of the program."""
        self._client = client
        self.opened_at = caller_location()
        self._track()

    def _after_fork(self) -> None:
        self._loop = None

    @property
    def request_id(self) -> str:
        """Name of the session in logs and errors of both sides."""
        return self.waits.request_id

    @property
    def peer(self) -> Peer:
        """The verified peer at the other end.

        Raises:
            SessionClosed: the session never was open.
        """
        if self._peer is None:
            raise SessionClosed(what="peer was read before the session was open, or")
        return self._peer

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
            part = bytes(chunk[start : start + limit])
            self._offset += limit
            self._credit_read_bytes(limit)
        else:
            self._chunks.popleft()
            rest = chunk[start:] if start else chunk
            part = bytes(rest)  # of bytes, bytes() makes no copy
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
            self._send_chunk(part)
            self._credit -= len(part) + CHUNK_COST
            self.bytes_written += len(part)
            rest = rest[len(part) :]
            self._writes += 1
            if self._writes % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _send_chunk(self, chunk: memoryview) -> None:
        """Send a chunk through the shared memory if there is one. No frame of ``write``, which an error keeps, has it
        as a variable."""
        memory = None if self.waits.sharing is None else self.waits.sharing.memory
        if memory is not None and len(chunk) >= SMALLEST:
            self._send(encode(SharedData(memory.write(chunk), len(chunk))))
        else:
            self._send(_CHUNK, chunk)

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
