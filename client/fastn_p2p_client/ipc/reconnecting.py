"""The connection to a mailbox, made again whenever it has ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import (
    ConnectionLost,
    HomeUnusable,
    P2PError,
)
from ..retry import Backoff
from .transport.native.codec import (
    OnMessage,
    Payload,
)
from .transport.native.connection import ZmtpConnection

FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.1
"""Seconds between two attempts, as in ``Backoff``."""

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""

log = logging.getLogger(__name__)


def check_listener(sock: socket.socket, path: Path) -> None:
    """Check that a process of this user listens at the socket; the kernel has noted which user that was.

    Raises:
        HomeUnusable: it is another user's.
    """
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(found)
    if user != os.getuid():
        reason = f"a process of uid {user} listens there, this is uid {os.getuid()}; nothing was sent to it"
        raise HomeUnusable(path=str(path), reason=reason)


class ReconnectingConnection:
    """The transport ``native``.

    Args:
        find: returns the path of the mailbox's socket, each time it is needed; raises P2PError when it is not safe.
        on_message: gets (id, header, payload).
        on_up: called at each completed connection.
        on_down: called at each loss of one, after its last message.
        on_refused: gets the reason whenever nothing is sent there, because it is not ours.
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
        self._on_up = on_connect
        self._on_down = on_disconnect
        self._connection: ZmtpConnection | None = None
        self._was_up = False
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._again: asyncio.TimerHandle | None = None
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial()

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._connection is not None:
            self._connection.close()

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """False when too much waits already. What is sent while a connection ends is lost with it."""
        connection = self._connection
        return connection is None or connection.send(correlation, header, payload, credited)

    def gather(self) -> None:
        """As ``ZmtpConnection.cork``."""
        if self._connection is not None:
            self._connection.cork()

    async def flushed(self) -> None:
        """As ``ZmtpConnection.drain``."""
        if self._connection is None:
            raise ConnectionLost(what="the connection to the daemon")
        await self._connection.drain()

    def _dial(self) -> None:
        self._again = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = self._find()
            sock.setblocking(False)
            sock.connect(str(path))
            check_listener(sock, path)
        except P2PError as error:
            sock.close()
            self._dial_later()
            self._on_refused(error)
            return
        except OSError:  # nobody listens yet, or too many wait to be let in
            sock.close()
            self._dial_later()
            return
        self._connection = ZmtpConnection(
            sock,
            "DEALER",
            f"the connection to {path.name}",
            on_ready=self._ready,
            on_message=self._on_message,
            on_end=self._ended,
            on_misfit=self._drop,
        )
        self._connection.start()

    def _dial_later(self) -> None:
        self._again = self._loop.call_later(self._backoff.pause(), self._dial)

    def _ready(self) -> None:
        self._was_up = True
        self._backoff.reset()
        self._on_up()

    def _ended(self) -> None:
        self._connection = None
        was_up, self._was_up = self._was_up, False
        if was_up:
            self._on_down()
        if not self._closed:
            self._dial_later()

    def _drop(self, frames: list[bytes], reason: str) -> None:
        log.warning("the daemon has sent %d frames: %s", len(frames), reason)
