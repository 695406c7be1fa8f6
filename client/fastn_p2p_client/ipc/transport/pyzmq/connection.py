"""``PyzmqConnection``: a libzmq DEALER to a mailbox.

The socket's descriptor is edge-triggered. So the socket is read until it is empty, both when the descriptor is readable
and after sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Final

import zmq

from ....affinity import Descriptor, LoopBound, sever
from ....errors import P2PError
from ...unix_sockets import connect_to
from ..base import ReconnectingTransport, connection_lost
from ..native.codec import Payload
from .send_queue import RETRY_DELAY, SendQueue
from .sockets import AGAIN, MORE, NOBLOCK, SocketMonitor, close_socket, dealer, endpoint, raw_get, raw_recv, readable

_BURST: Final = 256
"""Messages that are read before other tasks of the loop run."""
_LINGER_MS: Final = 500
"""Milliseconds for libzmq to send the last messages when the process ends."""


class PyzmqConnection(LoopBound, ReconnectingTransport):
    """The transport ``pyzmq``.

    libzmq would reconnect by itself, to a listener of any user. So each connection is requested here, after another
    socket has asked the kernel which user listens.
    """

    _path: Path | None = None
    """Path that libzmq connects to; None between two attempts."""
    _connection_descriptor: Descriptor | None = None
    """libzmq's descriptor of the connection."""
    _losses = 0
    """Number of connections that have ended."""
    _send_scheduled = False
    _in_monitor = False

    def open(self) -> None:
        self._idle = asyncio.Event()
        """Set while the send queue is empty."""
        self._idle.set()
        self._socket = dealer()
        self._send_queue = SendQueue(self._socket)
        self._monitor = SocketMonitor(self._socket)
        self._descriptor = int(self._socket.fileno())
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, self._read_all)
        loop.add_reader(self._monitor.fileno(), self._on_monitor)
        self._track()
        super().open()

    def close(self) -> None:
        if self._closed:
            return
        if self._is_connected:
            with contextlib.suppress(zmq.ZMQError):
                self._send_queue.flush()
        super().close()
        self._idle.set()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_reader(self._monitor.fileno())
        if not self._socket.closed:  # the end of the interpreter closes it first
            self._monitor.close()
            close_socket(self._socket, linger=_LINGER_MS if self._is_connected else 0)

    def _after_fork(self) -> None:
        """Abandon the socket: the child does not have libzmq's thread, so it can neither use nor close the socket."""
        self._closed = True
        self._is_connected = False
        if self._connection_descriptor is not None:
            sever(self._connection_descriptor)

    def _connect(self) -> None:
        try:
            path = self._find()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)
                connect_to(probe, path)
            self._socket.connect(endpoint(path))
        except P2PError as error:
            self._on_unsafe(error)
        except (OSError, zmq.ZMQError):  # no process listens yet, or its backlog is full
            self._on_failed_attempt()
        else:
            self._path = path
            self._loop.call_soon(self._on_monitor)

    def _on_failed_attempt(self) -> None:
        if self._path is not None:
            with contextlib.suppress(zmq.ZMQError):  # libzmq has dropped it already
                self._socket.disconnect(endpoint(self._path))
            self._path = None
        super()._on_failed_attempt()

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message; return False if the queue is full."""
        if not self._send_queue.add(correlation, header, bytes(payload), credited):
            return False
        self._idle.clear()
        if not self._send_scheduled:
            self._send_scheduled = True
            self._loop.call_soon(self._send_and_read)
        return True

    def cork(self) -> None:
        """Do nothing: the messages of one loop iteration always leave together."""

    async def drain(self) -> None:
        """Wait until libzmq has taken everything that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        losses = self._losses
        await self._idle.wait()
        if losses != self._losses:
            raise connection_lost()

    def _send_and_read(self) -> None:
        """Send the messages of this loop iteration, then read, as the edge-triggered descriptor requires."""
        self._send_scheduled = False
        if self._closed:
            return
        try:
            flushed = self._send_queue.flush()
        except zmq.ZMQError:  # the connection has ended; the monitor reports that
            self._send_queue.clear()
            flushed = True
        if flushed:
            self._idle.set()
        elif self._is_connected:
            self._send_scheduled = True
            self._loop.call_later(RETRY_DELAY, self._send_and_read)
        if readable(self._socket):
            self._read_all()

    def _read_all(self) -> None:
        socket = self._socket
        for taken in range(_BURST):
            if self._closed:
                return
            try:
                correlation = raw_recv(socket, NOBLOCK)
            except AGAIN:
                return
            while True:  # a mailbox always sends groups of three frames
                header = raw_recv(socket, NOBLOCK)
                payload = raw_recv(socket, NOBLOCK)
                self._on_message(correlation, header, payload)
                if self._closed:
                    return
                if not raw_get(socket, MORE):
                    break
                correlation = raw_recv(socket, NOBLOCK)
            if taken == 0 and not readable(socket):  # costs a fifth of the exception that an empty socket raises
                return
        self._loop.call_soon(self._read_all)

    def _on_monitor(self) -> None:
        if self._closed or self._in_monitor:
            return
        self._in_monitor = True
        try:
            self._handle_events()
        finally:
            self._in_monitor = False

    def _handle_events(self) -> None:
        for event in self._monitor.drain():
            if self._closed:
                return
            if event.kind == zmq.EVENT_CONNECTED:
                with contextlib.suppress(OSError):  # it has ended already
                    self._connection_descriptor = Descriptor.of(event.value)
            elif event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._on_ready()
            elif event.kind in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                self._on_end()

    def _on_end(self) -> None:
        self._connection_descriptor = None
        super()._on_end()

    def _on_lost(self) -> None:
        self._losses += 1
        self._send_queue.clear()
        self._idle.set()
        self._read_all()  # messages that arrived before the end still count
