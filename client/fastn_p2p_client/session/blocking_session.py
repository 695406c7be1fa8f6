"""``Session`` of the blocking API: ``fastn_p2p_client.session.session.Session`` without ``await``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Final, TypeVar

from ..affinity import used_elsewhere
from ..errors import SessionClosed, StreamReset
from ..event_loop_thread import SIGNALS_AFTER, background_loop, run_blocking, submit, wait_for
from ..limits import MAX_CHUNK, RESET_FAILED, SESSION_WINDOW
from ..peer import Peer
from . import session as _async
from .copy import READ_FILE, read_some, reading_method, write_all

T = TypeVar("T")


class Session:
    """Blocking twin of ``fastn_p2p_client.Session``. Any thread may use it; one may read while another one writes.

    ::

        with client.connect("alice", peer, "FileTransfer", initial="report.pdf") as session:
            session.copy_to(file)

    Session handlers that are not ``async`` are given one too. Leaving the ``with`` block closes the session. An
    exception in the block resets it instead, so that the peer knows that the data is incomplete.
    """

    def __init__(self, session: _async.Session, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """For ``connect`` and the dispatchers of handlers, not for programs.

        Args:
            session: the async session.
            loop: its event loop; default the one of the blocking API.
        """
        self._session = session
        self._loop = loop or background_loop()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def peer(self) -> Peer:
        """As ``Session.peer``."""
        return self._session.peer

    @property
    def has_input(self) -> bool:
        """As ``Session.has_input``."""
        return self._session.has_input

    @property
    def protocol(self) -> str:
        """Name of the protocol that the session was opened with."""
        return self._session.protocol

    @property
    def instance(self) -> str:
        """Name of the protocol's instance."""
        return self._session.instance

    @property
    def request_id(self) -> str:
        """Name of the session in logs and errors of both sides."""
        return self._session.request_id

    @property
    def bytes_read(self) -> int:
        """Bytes that the program has read so far."""
        return self._session.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes that the program has written so far."""
        return self._session.bytes_written

    @property
    def is_over(self) -> bool:
        """True if both directions have ended."""
        return self._session.is_over

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abort()
        else:
            self.close()

    def accept(self) -> None:
        """As ``Session.accept``, for handlers."""

        async def accept() -> None:
            self._session.accept()

        self._run(accept())

    def read(self, limit: int = MAX_CHUNK) -> bytes:
        """As ``Session.read``."""
        return self._run(self._session.read(limit))

    def read_exactly(self, size: int) -> bytes:
        """As ``Session.read_exactly``."""
        return self._run(self._session.read_exactly(size))

    def __iter__(self) -> Iterator[bytes]:
        """As iterating over ``Session``."""
        while chunk := self.read():
            yield chunk

    def write(self, data: bytes | bytearray | memoryview, *, copy: bool = True) -> None:
        """As ``Session.write``."""
        self._run(self._session.write(data, copy=copy))

    def send_eof(self) -> None:
        """As ``Session.send_eof``."""
        self._run(self._session.send_eof())

    def wait_sent(self) -> None:
        """As ``Session.wait_sent``."""
        self._run(self._session.wait_sent())

    def copy_to(self, writer: Any) -> int:
        """As ``Session.copy_to``. The writer, a file or another object with ``write``, is called in this thread."""
        self._check_process()
        ahead = _ReadAhead(self._session, self._loop)
        total = 0
        try:
            while chunk := ahead.next():
                write_all(writer, chunk)
                total += len(chunk)
        finally:
            ahead.stop()
        return total

    def copy_from(self, reader: Any) -> int:
        """As ``Session.copy_from``. The reader, a file or another object with ``read``, is called in this thread."""
        self._check_process()
        read = reading_method(reader)
        total = 0
        writing: Future[None] | None = None
        try:
            while data := read_some(reader, read, READ_FILE):
                if writing is not None:
                    wait_for(writing)
                writing = submit(self._session.write(bytes(data)), self._loop)
                total += len(data)
                if len(data) < READ_FILE:  # the next read can take long, and an error should not wait for it
                    wait_for(writing)
            if writing is not None:
                wait_for(writing)
        except BaseException:
            if writing is not None:
                writing.cancel()
            raise
        self.send_eof()
        return total

    def copy_both(self, reader: Any, writer: Any) -> tuple[int, int]:
        """As ``Session.copy_both``. The reader is called in a thread of its own."""
        self._check_process()
        sent: Future[int] = Future()

        def send() -> None:
            try:
                sent.set_result(self.copy_from(reader))
            except BaseException as error:
                sent.set_exception(error)
                if not isinstance(error, StreamReset):  # the peer has stopped reading, and may still send
                    self._abort()

        Thread(target=send, name="fastn-p2p copy", daemon=True).start()
        try:
            received = self.copy_to(writer)
            return wait_for(sent), received
        except BaseException as error:
            self._abort()
            if isinstance(error, SessionClosed) and sent.done() and (cause := sent.exception()) is not None:
                raise cause from None
            raise

    def close(self) -> None:
        """As ``Session.close``."""
        self._run(self._session.close())

    def stop_reading(self, code: int = 0) -> bool:
        """As ``Session.stop_reading``."""

        async def stop() -> bool:
            return self._session.stop_reading(code)

        return self._run(stop())

    def reset(self, code: int = 0) -> None:
        """As ``Session.reset``."""

        async def reset() -> None:
            self._session.reset(code)

        self._run(reset())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._pid != os.getpid():
            coroutine.close()
        self._check_process()
        return run_blocking(coroutine, self._loop)

    def _check_process(self) -> None:
        """Raise UsedElsewhere in a forked child, because the session is its parent's."""
        if self._pid != os.getpid():
            raise used_elsewhere("this session", self._pid, None)

    def _abort(self) -> None:
        if self._pid == os.getpid():
            with suppress(RuntimeError):  # the loop has ended, and with it the session
                self._loop.call_soon_threadsafe(self._session.abort, RESET_FAILED)


class _ReadAhead:
    """Read-ahead queue: the event loop reads chunks while this thread writes earlier ones.

    A new chunk wakes this thread if it waits. The loop is woken only if the queue was full.
    """

    FULL: Final = SESSION_WINDOW
    """Bytes in a full queue. Reading goes on when it is half empty."""

    def __init__(self, session: _async.Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._added = self._removed = 0
        self._is_full = False
        self._room = asyncio.Event()
        self._reading = submit(self._read(), loop)

    def next(self) -> bytes:
        """Return the next chunk, ``b""`` at the end. Raises the errors of ``read``."""
        chunk = None
        while chunk is None:
            with suppress(Empty):
                chunk = self._queue.get(timeout=SIGNALS_AFTER)
        if not chunk:
            wait_for(self._reading)
        self._removed += len(chunk)
        if self._is_full and self._added - self._removed <= self.FULL // 2:
            self._loop.call_soon_threadsafe(self._room.set)
        return chunk

    def stop(self) -> None:
        self._reading.cancel()

    async def _read(self) -> None:
        try:
            while chunk := await self._session.read():
                self._added += len(chunk)
                self._queue.put(chunk)
                if self._added - self._removed >= self.FULL:
                    await self._wait_for_room()
        finally:
            self._queue.put(b"")

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self._is_full = True  # before the check: ``next`` reads it after it has taken a chunk
        try:
            while self._added - self._removed > self.FULL // 2:
                await self._room.wait()
                self._room.clear()
        finally:
            self._is_full = False
