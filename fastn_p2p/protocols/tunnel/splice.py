"""A connection of a service joined to a session, so that its two ends cannot tell that there is one in between.

A service may answer before it has read the request (413, 401), and close: its kernel then sends the answer and a reset.
Over TCP the answer can be read before the reset, so it has to be here. A session's reset overtakes its bytes, in every
process on the way. So while bytes of a connection that was reset may be under way, two things are sent: a stop of the
other direction, whose code says that it was a reset, and the end of the direction of these bytes, which arrives whole.
The far end writes all of the bytes, waits until the kernel there has passed them on, and resets its own connection.
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
"""The code with which a session, or its reading, ends when a connection was reset."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_STUCK: Final = 30.0
"""Seconds without a byte after which the last bytes of a connection that has broken are given up."""
_LINGER: Final = 5.0
"""Seconds that a client may go on sending what nobody reads, after it was told the end of the answer."""
_GRACE: Final = 1.0
"""Seconds after which bytes count as arrived; before that, a reset could overtake them."""
_SETTLE: Final = 0.003
"""Seconds that an end waits for the stop that makes a reset of it: between daemons the two are not in order."""
_LOOK: Final = 0.01
"""Seconds between two looks at what a kernel has yet to pass on."""


async def splice(session: Session, connection: socket.socket) -> P2PError | None:
    """Carry bytes both ways between a session that stands and a connected, non-blocking socket; then close both.

    The end of one direction is passed on while the other one goes on. A session that breaks or is reset resets the
    connection, and the other way round; what a connection has sent before it was reset is delivered. Whoever sends
    faster than the other end takes waits.

    Returns:
        Why the session ended early; None when it was complete, or when it was the connection that ended.
    """
    return await _Splice(session, connection).run()


def reset_socket(connection: socket.socket) -> None:
    """Close it so that its other end sees a reset, not an end: what it has sent may not have arrived."""
    with contextlib.suppress(OSError):
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    connection.close()


class _Splice:
    """One joint. ``taking`` is from the connection to the session, ``giving`` the other way."""

    def __init__(self, session: Session, connection: socket.socket) -> None:
        self._session = session
        self._connection = connection
        self._far_is_broken = False
        """The connection at the other end of the session was reset: ours does not end, it is reset too."""
        self._loop = asyncio.get_running_loop()
        self._taken_at = -_GRACE
        """When the last bytes came from the connection."""
        self._taking = asyncio.ensure_future(self._socket_to_session())
        self._giving = asyncio.ensure_future(self._session_to_socket())
        self._passed_on = asyncio.ensure_future(session.wait_sent())
        self._tasks: list[asyncio.Future[Any]] = [self._taking, self._giving, self._passed_on]

    async def run(self) -> P2PError | None:
        """See ``splice``."""
        try:
            error = await self._until_the_end()
        except BaseException:  # whoever does this ends, with no fault of the connection
            self._break(RESET_LOST)
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return error

    async def _until_the_end(self) -> P2PError | None:
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            gave, took, passed_on = map(_failure, (self._giving, self._taking, self._passed_on))
            if isinstance(gave, OSError) or isinstance(took, OSError):
                await self._connection_broke()
                return None
            if gave is not None:
                raise gave
            if (stop := took or passed_on) is not None:
                return await self._far_end_reads_no_more(stop)
            await self._session.close()
            self._connection.close()
        except P2PError as error:
            self._break(RESET_BROKEN)
            return error
        except (OSError, TimeoutError):
            self._break(RESET_BROKEN)
        return None

    def _break(self, code: int) -> None:
        self._session.abort(code)
        reset_socket(self._connection)

    async def _connection_broke(self) -> None:
        """Pass on what the kernel still has of it, and that it was reset.

        Raises:
            P2PError, TimeoutError: it cannot be passed on.
        """
        session = self._session
        self._giving.cancel()
        told = session.stop_reading(RESET_BROKEN)
        with contextlib.suppress(OSError):
            await self._unless_stuck(self._taking)
        if self._loop.time() - self._taken_at >= _GRACE:
            self._break(RESET_BROKEN)
        elif told:
            await session.send_eof()
            await self._unless_stuck(self._passed_on)
            await session.close()
            reset_socket(self._connection)
        else:  # the far end has sent everything: it cannot be stopped
            await asyncio.sleep(_GRACE)
            self._break(RESET_BROKEN)

    async def _far_end_reads_no_more(self, stop: BaseException) -> P2PError | None:
        """Give the connection what still comes for it, and take what it sends to nobody.

        Raises:
            P2PError: not all of it comes. OSError, TimeoutError: the connection does not take it.
        """
        if not isinstance(stop, P2PError):
            raise stop
        is_closed = _is_closed(stop)
        self._far_is_broken = not is_closed
        self._taking.cancel()
        await asyncio.gather(self._taking, return_exceptions=True)
        discarding = asyncio.ensure_future(self._discard())
        self._tasks.append(discarding)
        await self._unless_stuck(self._giving)
        if is_closed:
            await asyncio.wait([discarding], timeout=_LINGER)
            self._connection.close()
        else:
            await self._unless_stuck(self._kernel_has_sent())
            reset_socket(self._connection)
        await self._session.close()
        return None if is_closed else stop

    async def _unless_stuck(self, work: asyncio.Future[Any] | Coroutine[Any, Any, None]) -> None:
        """Wait for it as long as bytes move.

        Raises:
            TimeoutError: none do. And what ``work`` raises.
        """
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        moved = -1
        while not task.done():
            before, moved = moved, self._session.bytes_read + self._session.bytes_written - self._unsent()
            if moved == before:
                raise TimeoutError
            await asyncio.wait([task], timeout=_STUCK)
        task.result()

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────

    async def _socket_to_session(self) -> None:
        session = self._session
        while data := await self._received():
            self._taken_at = self._loop.time()
            await session.write(data)
        await session.send_eof()

    async def _received(self) -> bytes:
        """What has come; the kernel gives it before it says that the connection was reset."""
        try:
            return self._connection.recv(MAX_CHUNK)
        except BlockingIOError:  # uvloop's sock_recv waits first: a dozen system calls while data is there
            return await self._loop.sock_recv(self._connection, MAX_CHUNK)

    async def _discard(self) -> None:
        with contextlib.suppress(OSError):
            while await self._received():
                pass

    async def _session_to_socket(self) -> None:
        send, connection = self._loop.sock_sendall, self._connection
        while chunk := await self._session.read():
            await send(connection, chunk)
        if not self._taking.done():
            await asyncio.wait([self._passed_on], timeout=_SETTLE)
        stop = _failure(self._taking) or _failure(self._passed_on)
        if isinstance(stop, P2PError) and not _is_closed(stop):
            self._far_is_broken = True
        if not self._far_is_broken:
            connection.shutdown(socket.SHUT_WR)

    async def _kernel_has_sent(self) -> None:
        while self._unsent():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(_LOOK)

    def _unsent(self) -> int:
        """Bytes that the kernel has of us and the other end has not acknowledged (SIOCOUTQ of tcp(7))."""
        if self._connection.family == socket.AF_UNIX or self._connection.fileno() < 0:
            return 0
        return int(struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _failure(task: asyncio.Future[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _is_closed(stop: BaseException) -> bool:
    """Return whether the far end has merely closed its side."""
    return isinstance(stop, StreamReset) and stop.reset_code == RESET_CLOSED
