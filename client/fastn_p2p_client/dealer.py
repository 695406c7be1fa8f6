"""A libzmq DEALER to a mailbox that asks for a CURVE key.

The socket is read dry whenever its (edge-triggered) descriptor says so, and again after sending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from .dialler import check_listener
from .errors import P2PError
from .outbox import RETRY_PAUSE, Outbox
from .sockets import (
    AGAIN,
    MORE,
    NOBLOCK,
    Curve,
    Monitor,
    close_socket,
    dealer,
    endpoint,
    raw_get,
    raw_recv,
    readable,
)
from .zmtp import OnMessage, Payload

__all__ = ["Dealer"]

_BURST: Final = 256
"""Messages taken in one go before other work of the loop gets a turn."""

log = logging.getLogger(__name__)


class Dealer:
    """What a ``Link`` stands on where the mailbox asks for a CURVE key. Reconnects by itself.

    Args:
        path: the mailbox's socket.
        on_message: gets (id, header, payload).
        on_up: called at each completed connection.
        on_down: called at each loss of one, after its last message.
        on_refused: gets the reason when the mailbox is left alone, because another user's process listens there.
    """

    def __init__(
        self,
        path: Path,
        curve: Curve,
        *,
        on_message: OnMessage,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_refused: Callable[[P2PError], None],
    ) -> None:
        self._path = path
        self._curve = curve
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self._up = False
        self._turn_soon = False
        self._closed = False
        self._watching = False
        self._idle = asyncio.Event()
        """Set while nothing waits to be sent."""
        self._idle.set()

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = dealer(self._curve)
        self._outbox = Outbox(self._socket)
        self._monitor = Monitor(self._socket)
        self._socket.connect(endpoint(self._path))
        self._descriptor = int(self._socket.fileno())
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.add_reader(self._monitor.fileno(), self._watch)
        self._loop.call_soon(self._watch)

    def close(self) -> None:
        self._closed = True
        self._idle.set()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_reader(self._monitor.fileno())
        self._monitor.close()
        close_socket(self._socket)

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
        """As ``Connection.gather``: here it is always so."""

    async def flushed(self) -> None:
        """Returns when libzmq has taken all that was sent, or the connection has ended."""
        await self._idle.wait()

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
            if event.kind == zmq.EVENT_CONNECTED:
                self._check_listener(event.value)
            elif event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up = True
                self._on_up()
            elif event.kind == zmq.EVENT_DISCONNECTED:
                if not self._up:
                    continue
                self._up = False
                self._outbox.clear()
                self._idle.set()
                self._drain()  # answers that came before the end still count
                self._on_down()

    def _check_listener(self, descriptor: int) -> None:
        """Leave a socket at which another user's process listens. Without the mailbox's secret key it has got no more
        than a greeting: libzmq connects by itself."""
        try:
            with socket.socket(fileno=os.dup(descriptor)) as connected:
                check_listener(connected, self._path)
        except P2PError as error:
            log.error("%s", error)
            self._on_refused(error)
            self._socket.disconnect(endpoint(self._path))
        except OSError:
            return  # it has ended already
