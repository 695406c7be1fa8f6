"""Splice of a socket and a session: copy bytes in both directions, and convert ends and resets of one into the other.

A service may reply before it has read the whole request (413, 401) and close. Its kernel then sends the reply and a
reset. Over TCP the client can read the reply before the reset, so it must be able to here. But the reset of a session
overtakes its bytes in every process on the path. So when a connection was reset while its bytes may be in transit, this
side sends two things instead: a stop of the other direction with the code ``RESET_BROKEN``, and the end of the bytes,
which arrives behind them. The remote end writes all bytes to its socket, waits until its kernel has sent them, and then
resets its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Coroutine
from typing import Any, Final

from fastn_p2p_client.errors import P2PError, StreamReset
from fastn_p2p_client.limits import MAX_CHUNK, RESET_CLOSED, RESET_LOST
from fastn_p2p_client.session.session import Session

RESET_BROKEN: Final = 1
"""Code of a session reset or stop after a connection was reset."""
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_STUCK_TIMEOUT: Final = 30.0
"""Seconds without a byte after which the last bytes of a broken connection are abandoned."""
DISCARD_SECONDS: Final = 5.0
"""Seconds for which bytes of a client are discarded after the end of the reply was sent to it."""
_TRANSIT_SECONDS: Final = 1.0
"""Seconds that the last bytes get to arrive before a reset that would overtake them."""
_QUIET_SECONDS: Final = 10.0
"""Seconds without a byte after which none is in transit, so that a reset of the session loses nothing. On a busy
machine bytes take long through five processes: with 20 processes for 2 cores, 1 second lost one reply in 250."""
_STOP_SECONDS: Final = 0.003
"""Seconds that an end waits for a stop that turns it into a reset. Between daemons the two have no order."""
_POLL_SECONDS: Final = 0.01
"""Seconds between two checks of the bytes that the kernel has not sent."""


async def splice(session: Session, connection: socket.socket) -> P2PError | None:
    """Copy bytes in both directions between an open session and a connected, non-blocking socket; then close both.

    The end of one direction is forwarded while the other one continues. A session that breaks or is reset resets the
    connection, and the reverse. Bytes that a connection has sent before its reset are delivered. A sender that is
    faster than its receiver waits.

    Returns:
        The error that ended the session early; None if it was complete, or if the connection failed.
    """
    return await Splice(session, connection).run()


def reset_socket(connection: socket.socket) -> None:
    """Close a connection with a reset instead of an end, because bytes sent to it may not have arrived."""
    with contextlib.suppress(OSError):
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    connection.close()


class Splice:
    """Tasks of one splice. ``_from_socket`` copies from the connection to the session, ``_to_socket`` the other way."""

    def __init__(self, session: Session, connection: socket.socket) -> None:
        self._session = session
        self._connection = connection
        self._remote_was_reset = False
        """The connection at the remote end of the session was reset. This one must be reset too, not ended."""
        self._loop = asyncio.get_running_loop()
        self._passed_on_at = -_QUIET_SECONDS
        """Time at which the session took the last bytes of the connection. They may have waited long for credit."""
        self._from_socket = asyncio.ensure_future(self._socket_to_session())
        self._to_socket = asyncio.ensure_future(self._session_to_socket())
        self._sent = asyncio.ensure_future(session.wait_sent())
        self._tasks: list[asyncio.Future[Any]] = [self._from_socket, self._to_socket, self._sent]

    async def run(self) -> P2PError | None:
        """See ``splice``."""
        try:
            error = await self._until_the_end()
        except BaseException:  # the handler was cancelled; the connection did not fail
            self._reset_both(RESET_LOST)
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return error

    async def _until_the_end(self) -> P2PError | None:
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            to_socket, from_socket, sent = map(_exception_of, (self._to_socket, self._from_socket, self._sent))
            if isinstance(to_socket, OSError) or isinstance(from_socket, OSError):
                await self._on_connection_reset()
                return None
            if to_socket is not None:
                raise to_socket
            if (stop := from_socket or sent) is not None:
                return await self._on_remote_stop(stop)
            await self._session.close()
            self._connection.close()
        except P2PError as error:
            self._reset_both(RESET_BROKEN)
            return error
        except (OSError, TimeoutError):
            self._reset_both(RESET_BROKEN)
        return None

    def _reset_both(self, code: int) -> None:
        self._session.abort(code)
        reset_socket(self._connection)

    async def _on_connection_reset(self) -> None:
        """Forward the bytes that the kernel still has, then the reset.

        Raises:
            P2PError, TimeoutError: the session cannot take them.
        """
        session = self._session
        self._to_socket.cancel()
        stopped = session.stop_reading(RESET_BROKEN)
        with contextlib.suppress(OSError):
            await self._while_moving(self._from_socket)
        if self._loop.time() - self._passed_on_at >= _QUIET_SECONDS:
            self._reset_both(RESET_BROKEN)
        elif stopped:
            await session.send_eof()
            await self._while_moving(self._sent)
            await session.close()
            reset_socket(self._connection)
        else:  # the remote end has sent everything, so no stop can reach it
            await asyncio.sleep(_TRANSIT_SECONDS)
            self._reset_both(RESET_BROKEN)

    async def _on_remote_stop(self, stop: BaseException) -> P2PError | None:
        """Write the remaining bytes to the connection, and discard what it sends.

        Raises:
            P2PError: the session ended early.
            OSError, TimeoutError: the connection does not accept the bytes.
        """
        if not isinstance(stop, P2PError):
            raise stop
        is_closed = _is_closed(stop)
        self._remote_was_reset = not is_closed
        self._from_socket.cancel()
        await asyncio.gather(self._from_socket, return_exceptions=True)
        discarding = asyncio.ensure_future(self._discard())
        self._tasks.append(discarding)
        await self._while_moving(self._to_socket)
        if is_closed:
            await asyncio.wait([discarding], timeout=DISCARD_SECONDS)
            self._connection.close()
        else:
            await self._while_moving(self._wait_until_sent())
            reset_socket(self._connection)
        await self._session.close()
        return None if is_closed else stop

    async def _while_moving(self, work: asyncio.Future[Any] | Coroutine[Any, Any, None]) -> None:
        """Await ``work`` as long as bytes move.

        Raises:
            TimeoutError: no byte moved for ``_STUCK_TIMEOUT`` seconds.
            Exception: from ``work``.
        """
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        moved = -1
        while not task.done():
            before, moved = moved, self._session.bytes_read + self._session.bytes_written - self._unsent()
            if moved == before:
                raise TimeoutError
            await asyncio.wait([task], timeout=_STUCK_TIMEOUT)
        task.result()

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────

    async def _socket_to_session(self) -> None:
        session = self._session
        while data := await self._receive():
            await session.write(data)
            self._passed_on_at = self._loop.time()
        await session.send_eof()

    async def _receive(self) -> bytes:
        """Return received bytes. The kernel returns them before it reports a reset."""
        try:
            return self._connection.recv(MAX_CHUNK)
        except BlockingIOError:  # uvloop's sock_recv always waits first: a dozen system calls even if data is there
            return await self._loop.sock_recv(self._connection, MAX_CHUNK)

    async def _discard(self) -> None:
        with contextlib.suppress(OSError):
            while await self._receive():
                pass

    async def _session_to_socket(self) -> None:
        send, connection = self._loop.sock_sendall, self._connection
        while chunk := await self._session.read():
            await send(connection, chunk)
        await self._end_connection()

    async def _end_connection(self) -> None:
        """Pass the end of the session's bytes on, unless a reset follows it."""
        connection = self._connection
        if not self._from_socket.done():
            await asyncio.wait([self._sent], timeout=_STOP_SECONDS)
        stop = _exception_of(self._from_socket) or _exception_of(self._sent)
        if isinstance(stop, P2PError) and not _is_closed(stop):
            self._remote_was_reset = True
        if not self._remote_was_reset:
            connection.shutdown(socket.SHUT_WR)

    async def _wait_until_sent(self) -> None:
        while self._unsent():  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(_POLL_SECONDS)

    def _unsent(self) -> int:
        return unsent_bytes(self._connection)


def unsent_bytes(connection: socket.socket) -> int:
    """Return the bytes that the remote end of a connection has not acknowledged (SIOCOUTQ of tcp(7))."""
    if connection.family == socket.AF_UNIX or connection.fileno() < 0:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _exception_of(task: asyncio.Future[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _is_closed(stop: BaseException) -> bool:
    """Return whether the remote end has closed its side without a reset."""
    return isinstance(stop, StreamReset) and stop.reset_code == RESET_CLOSED
