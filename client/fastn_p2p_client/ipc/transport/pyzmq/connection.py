"""A libzmq DEALER to a mailbox, with a CURVE key or without.

The socket is read dry whenever its (edge-triggered) descriptor says so, and again after sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from ....affinity import (
    Descriptor,
    LoopBound,
    sever,
)
from ....errors import (
    ConnectionLost,
    P2PError,
)
from ....retry import Backoff
from ...reconnecting import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    check_listener,
)
from ..native.codec import (
    OnMessage,
    Payload,
)
from .send_queue import (
    RETRY_PAUSE,
    SendQueue,
)
from .sockets import (
    AGAIN,
    MORE,
    NOBLOCK,
    CurveKeys,
    SocketMonitor,
    close_socket,
    dealer,
    endpoint,
    raw_get,
    raw_recv,
    readable,
)

_BURST: Final = 256
"""Messages taken in one go before other work of the loop gets a turn."""
_LINGER_MS: Final = 500
"""Milliseconds that libzmq may take, when the process ends, for what was sent before the socket was closed."""


class PyzmqConnection(LoopBound):
    """The transport ``pyzmq``.

    libzmq would reconnect by itself, and greet any listener. Instead it is told to connect each time, after a socket of
    ours has asked the kernel whose process listens.

    Args:
        find: returns the path of the mailbox's socket, each time it is needed; raises P2PError when it is not safe.
        curve: the key that the mailbox asks for, if it asks for one.
        on_message: gets (id, header, payload).
        on_up: called at each completed connection.
        on_down: called at each loss of one, after its last message.
        on_refused: gets the reason whenever nothing is sent there, because it is not ours.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        curve: CurveKeys | None = None,
        *,
        on_message: OnMessage,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_refused: Callable[[P2PError], None],
    ) -> None:
        self._find = find
        self._curve = curve
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self._path: Path | None = None
        """Path of the mailbox that libzmq connects to; None between two attempts."""
        self._connected: Descriptor | None = None
        """libzmq's of the connection."""
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._again: asyncio.TimerHandle | None = None
        self._up = False
        self._losses = 0
        """Connections that have ended."""
        self._turn_soon = False
        self._closed = False
        self._watching = False
        self._idle = asyncio.Event()
        """Set while nothing waits to be sent."""
        self._idle.set()

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = dealer(self._curve)
        self._outbox = SendQueue(self._socket)
        self._monitor = SocketMonitor(self._socket)
        self._descriptor = int(self._socket.fileno())
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.add_reader(self._monitor.fileno(), self._watch)
        self._track()
        self._connect()

    def close(self) -> None:
        if self._closed:
            return
        if self._up:
            with contextlib.suppress(zmq.ZMQError):
                self._outbox.flush()
        self._closed = True
        self._idle.set()
        if self._again is not None:
            self._again.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_reader(self._monitor.fileno())
        if not self._socket.closed:  # the end of the interpreter closes it first
            self._monitor.close()
            close_socket(self._socket, linger=_LINGER_MS if self._up else 0)

    def _after_fork(self) -> None:
        """libzmq's thread is not in the child, and its sockets cannot be used or closed there."""
        self._closed = True
        self._up = False
        if self._connected is not None:
            sever(self._connected)

    def _connect(self) -> None:
        self._again = None
        try:
            path = self._find()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)
                probe.connect(str(path))
                check_listener(probe, path)
            self._socket.connect(endpoint(path))
        except P2PError as error:
            self._connect_later()
            self._on_refused(error)
        except (OSError, zmq.ZMQError):  # nobody listens yet, or too many wait to be let in
            self._connect_later()
        else:
            self._path = path
            self._loop.call_soon(self._watch)

    def _connect_later(self) -> None:
        if self._path is not None:
            with contextlib.suppress(zmq.ZMQError):  # libzmq has forgotten it already
                self._socket.disconnect(endpoint(self._path))
            self._path = None
        if self._again is None:
            self._again = self._loop.call_later(self._backoff.pause(), self._connect)

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """False when too much waits already."""
        if not self._outbox.add(correlation, header, bytes(payload), credited):
            return False
        self._idle.clear()
        if not self._turn_soon:
            self._turn_soon = True
            self._loop.call_soon(self._turn)
        return True

    def gather(self) -> None:
        """Do nothing: what is sent in one turn always leaves together."""

    async def flushed(self) -> None:
        """Return when libzmq has taken all that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        losses = self._losses
        await self._idle.wait()
        if losses != self._losses:
            raise ConnectionLost(what="the connection to the daemon")

    def _turn(self) -> None:
        """Send what this turn of the loop has gathered, and look at the socket again, as its descriptor demands."""
        self._turn_soon = False
        if self._closed:
            return
        try:
            flushed = self._outbox.flush()
        except zmq.ZMQError:  # the connection ends; its end is told by the monitor
            self._outbox.clear()
            flushed = True
        if flushed:
            self._idle.set()
        elif self._up:
            self._turn_soon = True
            self._loop.call_later(RETRY_PAUSE, self._turn)
        if readable(self._socket):
            self._drain()

    def _drain(self) -> None:
        socket = self._socket
        for taken in range(_BURST):
            if self._closed:
                return
            try:
                correlation = raw_recv(socket, NOBLOCK)
            except AGAIN:
                return
            while True:  # a mailbox of the daemon always sends groups of three frames
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
        self._loop.call_soon(self._drain)

    def _watch(self) -> None:
        if self._closed or self._watching:
            return
        self._watching = True
        try:
            self._follow_events()
        finally:
            self._watching = False

    def _follow_events(self) -> None:
        for event in self._monitor.drain():
            if self._closed:
                return
            if event.kind == zmq.EVENT_CONNECTED:
                with contextlib.suppress(OSError):  # it has ended already
                    self._connected = Descriptor.of(event.value)
            elif event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up = True
                self._backoff.reset()
                self._on_up()
            elif event.kind in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                self._on_end()

    def _on_end(self) -> None:
        """The connection, or the attempt to make one, has ended."""
        self._connected = None
        if self._up:
            self._up = False
            self._losses += 1
            self._outbox.clear()
            self._idle.set()
            self._drain()  # answers that came before the end still count
            self._on_down()
        if not self._closed:
            self._connect_later()
