"""``ReconnectingConnection``: a ZMTP connection to a mailbox that is made again when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import ConnectionLost, HomeUnusable, P2PError
from ..retry import Backoff
from .transport.native.codec import OnMessage, Payload
from .transport.native.connection import ZmtpConnection
from .unix_sockets import Opener, get_opener

FIRST_DELAY: Final = 0.01
"""Seconds before the second attempt to connect."""
LONGEST_DELAY: Final = 0.1
"""Seconds: the longest pause between two attempts."""
NOT_ADMITTED: Final = "this user may not connect to it. Its group may: ask root to add you, and log in again"

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""

log = logging.getLogger(__name__)


def check_listener(sock: socket.socket, path: Path) -> None:
    """Check that a process of this user or of root listens at the connected socket. The kernel has recorded its user.

    Raises:
        HomeUnusable: the process belongs to another user.
    """
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(found)
    if user not in (0, os.getuid()):
        reason = f"a process of uid {user} listens there, and this is uid {os.getuid()}. Nothing was sent to it"
        raise HomeUnusable(path=str(path), reason=reason)


def connect_to(sock: socket.socket, path: Path) -> None:
    """Connect to a mailbox, and check who listens there.

    Raises:
        HomeUnusable: this user may not connect, or the process that listens belongs to another user.
        OSError: no process listens yet, or its backlog is full.
    """
    try:
        sock.connect(str(path))
    except PermissionError:
        raise HomeUnusable(path=str(path), reason=NOT_ADMITTED) from None
    check_listener(sock, path)


class ReconnectingConnection:
    """The transport ``native``: a ``ZmtpConnection`` that is made again when it ends.

    Args:
        find: returns the path of the mailbox's socket, before each attempt. Raises P2PError if the path is not safe.
        on_message: called with (id, header, payload).
        on_connect: called after each handshake.
        on_disconnect: called when a connection has ended, after its last message.
        on_refused: called with the error if the socket could be another user's. Nothing was sent then.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        *,
        on_message: OnMessage,
        on_connect: Callable[[], None],
        on_disconnect: Callable[[], None],
        on_refused: Callable[[P2PError], None],
    ) -> None:
        self._find = find
        self._on_refused = on_refused
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._connection: ZmtpConnection | None = None
        self._was_connected = False
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._retry_timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect()

    def close(self) -> None:
        self._closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        if self._opening is not None and not self._opening.get_loop().is_closed():
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message; return False if the queue is full.

        A message that is sent while the connection ends is lost with it.
        """
        connection = self._connection
        return connection is None or connection.send(correlation, header, payload, credited)

    def cork(self) -> None:
        """Send everything of this loop iteration together at its end."""
        if self._connection is not None:
            self._connection.cork()

    async def drain(self) -> None:
        """Wait until the kernel has taken everything that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        if self._connection is None:
            raise ConnectionLost(what="the connection to the daemon")
        await self._connection.drain()

    def _connect(self) -> None:
        self._retry_timer = None
        opener = get_opener()
        if opener is not None:
            self._opening = self._loop.create_task(self._open(opener))
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = self._find()
            sock.setblocking(False)
            connect_to(sock, path)
        except P2PError as error:
            sock.close()
            self._connect_later()
            self._on_refused(error)
            return
        except OSError:  # no process listens yet, or its backlog is full
            sock.close()
            self._connect_later()
            return
        self._use(sock, path)

    async def _open(self, opener: Opener) -> None:
        """Connect by another process, which has checked the listener."""
        try:
            path = self._find()
            sock = await opener(path)
        except P2PError as error:
            self._connect_later()
            self._on_refused(error)
        except OSError:
            self._connect_later()
        else:
            self._use(sock, path)

    def _use(self, sock: socket.socket, path: Path) -> None:
        self._connection = ZmtpConnection(
            sock,
            "DEALER",
            f"the connection to {path.name}",
            on_ready=self._ready,
            on_message=self._on_message,
            on_end=self._ended,
            on_invalid=self._ignore_invalid,
        )
        self._connection.start()

    def _connect_later(self) -> None:
        self._retry_timer = self._loop.call_later(self._backoff.next_delay(), self._connect)

    def _ready(self) -> None:
        self._was_connected = True
        self._backoff.reset()
        self._on_connect()

    def _ended(self) -> None:
        self._connection = None
        was_connected, self._was_connected = self._was_connected, False
        if was_connected:
            self._on_disconnect()
        if not self._closed:
            self._connect_later()

    def _ignore_invalid(self, frames: list[bytes], reason: str) -> None:
        log.warning("ignored %d frames from the daemon: %s", len(frames), reason)
