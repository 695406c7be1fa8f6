"""``ReconnectingConnection``: a ZMTP connection to a mailbox that is made again when it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

from ..errors import P2PError
from .transport.base import ReconnectingTransport, connection_lost
from .transport.native.codec import Payload
from .transport.native.connection import ZmtpConnection
from .unix_sockets import Opener, connect_to, get_opener

log = logging.getLogger(__name__)


class ReconnectingConnection(ReconnectingTransport):
    """The transport ``native``: one ``ZmtpConnection`` after the other."""

    _connection: ZmtpConnection | None = None
    _opening: asyncio.Task[None] | None = None

    def close(self) -> None:
        super().close()
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
            raise connection_lost()
        await self._connection.drain()

    def _connect(self) -> None:
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
            self._on_unsafe(error)
        except OSError:  # no process listens yet, or its backlog is full
            sock.close()
            self._on_failed_attempt()
        else:
            self._use(sock, path)

    async def _open(self, opener: Opener) -> None:
        """Connect by another process, which has checked the listener."""
        try:
            path = self._find()
            sock = await opener(path)
        except P2PError as error:
            self._on_unsafe(error)
        except OSError:
            self._on_failed_attempt()
        else:
            self._use(sock, path)

    def _use(self, sock: socket.socket, path: Path) -> None:
        self._connection = ZmtpConnection(
            sock,
            "DEALER",
            f"the connection to {path.name}",
            on_ready=self._on_ready,
            on_message=self._on_message,
            on_end=self._on_end,
            on_invalid=self._ignore_invalid,
        )
        self._connection.start()

    def _on_end(self) -> None:
        self._connection = None
        super()._on_end()

    def _ignore_invalid(self, frames: list[bytes], reason: str) -> None:
        log.warning("ignored %d frames from the daemon: %s", len(frames), reason)
