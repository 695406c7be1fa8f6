"""``Transport``: the interface of the transports of the local protocol, their common base, and the choice of one.

Both transports speak ZMTP 3.1 as a DEALER to a mailbox, so the mailbox cannot tell them apart:

- ``native``: on the event loop, without a thread. The default.
- ``pyzmq``: libzmq, with an I/O thread. Programs may choose it.

Measured with calls through two daemons on two cores: if all processes use ``pyzmq``, a call takes 1.44 times as long.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, get_args

from ...errors import ConnectionLost, InvalidName, P2PError
from ...retry import Backoff
from .native.codec import OnMessage, Payload

TransportName: TypeAlias = Literal["native", "pyzmq"]
TRANSPORTS: Final[tuple[TransportName, ...]] = get_args(TransportName)
_VARIABLE: Final = "FASTN_TRANSPORT"
_FIRST_DELAY: Final = 0.01
"""Seconds before the second attempt to connect."""
_LONGEST_DELAY: Final = 0.1
"""Seconds between two attempts at most."""


class Transport(Protocol):
    """A connection to one mailbox that is made again when it ends.

    Its constructor takes the arguments of ``ReconnectingTransport``.
    """

    def open(self) -> None:
        """Start to connect, in the running event loop."""

    def close(self) -> None:
        """Close, and make no callback any more. Messages that were sent leave if the kernel takes them now."""

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message. Return False if the queue is full and the message is not ``credited``."""
        ...

    def cork(self) -> None:
        """Send everything of this loop iteration together at its end."""

    async def drain(self) -> None:
        """Wait until everything that was sent has left this process. Raises ConnectionLost."""


class ReconnectingTransport:
    """Base of the transports: connects, and with backoff again after each failed attempt and each end of a connection.

    A subclass makes one attempt in ``_connect``. It reports the result with ``_on_ready``, ``_on_failed_attempt`` or
    ``_on_unsafe``, and later the end of the connection with ``_on_end``.

    Args:
        find: returns the path of the mailbox's socket, before each attempt. Raises P2PError if the path is not safe.
        on_message: called with (id, header, payload).
        on_connect: called after each handshake.
        on_disconnect: called when a connection has ended, after its last message.
        on_unsafe_socket: called with the error if the socket could be another user's. Nothing was sent then.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        *,
        on_message: OnMessage,
        on_connect: Callable[[], None],
        on_disconnect: Callable[[], None],
        on_unsafe_socket: Callable[[P2PError], None],
    ) -> None:
        self._find = find
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._on_unsafe_socket = on_unsafe_socket
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._retry_timer: asyncio.TimerHandle | None = None
        self._is_connected = False
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect()

    def close(self) -> None:
        self._closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()

    def _connect(self) -> None:
        """Begin one attempt to connect."""
        raise NotImplementedError

    def _on_ready(self) -> None:
        self._is_connected = True
        self._backoff.reset()
        self._on_connect()

    def _on_unsafe(self, error: P2PError) -> None:
        self._on_failed_attempt()
        self._on_unsafe_socket(error)

    def _on_failed_attempt(self) -> None:
        if not self._closed and self._retry_timer is None and not self._loop.is_closed():
            self._retry_timer = self._loop.call_later(self._backoff.next_delay(), self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self._connect()

    def _on_end(self) -> None:
        """Handle the end of a connection, or of an attempt to make one."""
        was_connected, self._is_connected = self._is_connected, False
        if was_connected:
            self._on_lost()
            if not self._closed:
                self._on_disconnect()
        self._on_failed_attempt()

    def _on_lost(self) -> None:
        """Handle what is left of a connection that has ended after its handshake."""


def connection_lost() -> ConnectionLost:
    """Return the error of a ``drain`` whose connection has ended."""
    return ConnectionLost(what="the connection to the daemon")


def choose_transport(name: str | None = None) -> TransportName:
    """Return the name of the transport: ``name``, else ``$FASTN_TRANSPORT``, else ``"native"``.

    Raises:
        InvalidName: there is no transport of this name.
    """
    chosen = name or os.environ.get(_VARIABLE) or TRANSPORTS[0]
    if chosen not in TRANSPORTS:
        raise InvalidName(name=chosen, what="a transport", reason=f"choose one of {', '.join(TRANSPORTS)}")
    return chosen
