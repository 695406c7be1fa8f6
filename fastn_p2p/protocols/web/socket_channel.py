"""A socket and a channel of a session that many connections share: bytes pass by callbacks, without a task.

A task waits for the outcome only. What is rare happens there: an answer of ours, a reset behind bytes that the kernel
still has, a move to a session of the connection's own, which then is a splice.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from typing import Final

from fastn_p2p_client.http.multiplexer import WINDOW, Multiplexer, SessionChannel
from fastn_p2p_client.http.request_rewriter import Pieces, RequestRewriter
from fastn_p2p_client.session.session import Session

from .._shared.splice import reset_socket, unsent_bytes

_RECEIVE: Final = WINDOW // 2
_POLL_SECONDS: Final = 0.01
"""Seconds between two checks of the bytes that the kernel has not sent."""
_STUCK_TIMEOUT: Final = 30.0
"""Seconds without a byte after which the last bytes of a reset connection are abandoned."""


class Outcome(enum.Enum):
    """Outcome of a channel."""

    OVER = enum.auto()
    """Both directions have ended, or the socket has failed."""
    RESET = enum.auto()
    """The connection at the other end has failed."""
    LOST = enum.auto()
    """The session of the channel has ended."""
    REFUSED = enum.auto()
    """The rewriter has refused a request."""
    UPGRADE = enum.auto()
    """A request for an upgrade needs a session of its own."""
    MOVED = enum.auto()
    """The rest is in ``own_session``."""


class SocketChannel(SessionChannel):
    """Base of both ends.

    Attributes:
        outcome: set when the channel passes nothing any more. The socket is then the task's.
        own_session: the session to which the channel moves.
        error: why the channel was lost.
        unsent: what was to be sent when it moved.
    """

    def __init__(self, multiplexer: Multiplexer, number: int, rewriter: RequestRewriter) -> None:
        super().__init__(multiplexer, number)
        self.rewriter = rewriter
        self._socket: socket.socket | None = None
        self.own_session: Session | None = None
        self.error: Exception | None = None
        self.unsent: Pieces = []
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._unwritten: list[bytes | memoryview] = []
        """Bytes that the socket has not accepted."""
        self._read_bytes = 0
        """Bytes of the channel whose credit was not returned."""
        self._is_reading = self._is_writing = False
        self._ends_socket = False
        """The other end has sent everything."""
        self._discards = False
        """The socket accepts no bytes any more."""
        self._is_rest_moved = False

    @property
    def connection(self) -> socket.socket:
        """The socket.

        Raises:
            RuntimeError: there is none yet.
        """
        if self._socket is None:
            raise RuntimeError("the channel has no socket yet")
        return self._socket

    @property
    def moved_to(self) -> Session:
        """The session in which a channel goes on that has moved.

        Raises:
            RuntimeError: it has not moved.
        """
        if self.own_session is None:
            raise RuntimeError("the channel has not moved")
        return self.own_session

    def attach(self, connection: socket.socket) -> None:
        """Set the socket, which must not block."""
        self._socket = connection
        self._flush()
        self._read_if_unblocked()

    def detach(self) -> None:
        """Stop without an outcome: the task does not wait for one any more."""
        self._finish(Outcome.LOST)
        self.reset()

    async def wait_until_written(self) -> None:
        """Write the rest of the bytes for the socket, and wait until its kernel has sent them.

        Raises:
            OSError: the socket does not accept them.
            TimeoutError: no byte moved for 30 seconds.
        """
        for data in self._unwritten:
            async with asyncio.timeout(_STUCK_TIMEOUT):
                await self._loop.sock_sendall(self.connection, data)
        left, until = unsent_bytes(self.connection), self._loop.time() + _STUCK_TIMEOUT
        while left:
            await asyncio.sleep(_POLL_SECONDS)
            before, left = left, unsent_bytes(self.connection)
            if left < before:
                until = self._loop.time() + _STUCK_TIMEOUT
            elif self._loop.time() > until:
                raise TimeoutError

    # ── from the socket ──────────────────────────────────────────────────────────────────────────

    def _read_if_unblocked(self) -> None:
        if self._is_reading or self.has_ended or self.is_blocked or self.outcome.done():
            return
        if self._socket is not None and self.own_session is None:
            self._is_reading = True
            self._loop.add_reader(self._socket, self._on_readable)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self.connection)

    def _on_readable(self) -> None:
        try:
            data = self.connection.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._on_socket_failed()
            return
        if data:
            self._pass_on(data)
            if self.is_blocked:
                self._stop_reading()
        else:
            self._stop_reading()
            self.end()
            self._finish_if_over()

    def _pass_on(self, data: bytes) -> None:
        """Pass bytes of the socket on."""
        raise NotImplementedError

    def _on_socket_failed(self) -> None:
        """End the channel: the kernel has returned all bytes before it reported the failure."""
        self.reset()
        self._finish(Outcome.OVER)

    def on_credit(self) -> None:
        self._read_if_unblocked()
        self._finish_if_over()

    # ── to the socket ────────────────────────────────────────────────────────────────────────────

    def _write(self, data: bytes | memoryview) -> None:
        if self._discards:
            return
        connection = self._socket
        if connection is None or self._unwritten:
            self._unwritten.append(data)
            return
        try:
            sent = connection.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._on_write_failed()
            return
        if sent < len(data):
            self._unwritten.append(data[sent:])
            self._is_writing = True
            self._loop.add_writer(connection, self._flush)

    def _return_credit(self, size: int = 0) -> None:
        """Return the credit of bytes that the socket has accepted."""
        self._read_bytes += size
        if not self._unwritten:
            self.consume(self._read_bytes)
            self._read_bytes = 0

    def _flush(self) -> None:
        self._stop_writing()
        unwritten, self._unwritten = self._unwritten, []
        if unwritten:
            self._write(b"".join(unwritten))
        self._return_credit()
        self._on_written()

    def _stop_writing(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self.connection)

    def _on_write_failed(self) -> None:
        """Discard what comes. An answer that came before, and then the failure, are read from the socket."""
        self._discards = True
        self._unwritten.clear()
        if self.has_ended:
            self._on_socket_failed()

    def _on_written(self) -> None:
        """Do what waits until the socket has accepted all bytes."""
        if self._unwritten or self._socket is None or self.outcome.done():
            return
        if self._is_rest_moved and self.own_session is not None:
            self._finish(Outcome.MOVED)
        elif self._ends_socket:
            self._ends_socket = False
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError:
                self._on_write_failed()
            self._finish_if_over()

    def on_end(self) -> None:
        self._ends_socket = True
        self._on_written()

    def on_reset(self, error: Exception | None) -> None:
        self.error = error
        self._finish(Outcome.RESET if error is None else Outcome.LOST)

    # ── a session of its own ─────────────────────────────────────────────────────────────────────

    def move_to(self, session: Session) -> None:
        """Go on in a session that is open, once the other end does the same."""
        if self.outcome.done() or self.own_session is not None:
            session.abort(0)
            return
        self._stop_reading()
        self.own_session = session
        self.unsent = self.move()
        self._on_written()

    def on_moved(self) -> None:
        self._is_rest_moved = True
        self._on_written()

    # ── the outcome ──────────────────────────────────────────────────────────────────────────────

    def _finish(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self._stop_reading()
            self._stop_writing()
            self._discards = True
            self.outcome.set_result(outcome)

    def _finish_if_over(self) -> None:
        if self.own_session is not None or self._is_rest_moved:
            return
        if self.has_ended and self._received_last and not (self._unwritten or self._ends_socket or self.is_blocked):
            self._finish(Outcome.OVER)

    async def reset_behind_bytes(self) -> None:
        """Reset the socket behind the bytes that came for it."""
        with contextlib.suppress(OSError, TimeoutError):
            await self.wait_until_written()
        reset_socket(self.connection)
