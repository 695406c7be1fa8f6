"""The connection to a mailbox, made again whenever it has ended."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from .connection import Connection
from .errors import ConnectionLost
from .zmtp import OnMessage, Payload

__all__ = ["Dialler"]

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.1
"""Seconds between two attempts; each pause is twice the one before, less a random part of up to one half."""

_random: Final = Random()
"""Of its own: the numbers that a program draws from ``random``, perhaps seeded, are the program's."""

log = logging.getLogger(__name__)


class Dialler:
    """What a ``Link`` stands on where the mailbox asks for no CURVE key.

    Args:
        path: the mailbox's socket.
        on_message: gets (id, header, payload).
        on_up: called at each completed connection.
        on_down: called at each loss of one, after its last message.
    """

    def __init__(
        self, path: Path, *, on_message: OnMessage, on_up: Callable[[], None], on_down: Callable[[], None]
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._connection: Connection | None = None
        self._was_up = False
        self._pause = _FIRST_PAUSE
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
        """As ``Connection.gather``."""
        if self._connection is not None:
            self._connection.gather()

    async def flushed(self) -> None:
        """As ``Connection.flushed``."""
        if self._connection is None:
            raise ConnectionLost(what=f"the connection to {self._path.name}")
        await self._connection.flushed()

    def _dial(self) -> None:
        self._again = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(str(self._path))
        except OSError:  # nobody listens yet, or too many wait to be let in
            sock.close()
            self._dial_later()
            return
        self._connection = Connection(
            sock,
            "DEALER",
            f"the connection to {self._path.name}",
            on_ready=self._ready,
            on_message=self._on_message,
            on_end=self._ended,
            on_misfit=self._drop,
        )
        self._connection.start()

    def _dial_later(self) -> None:
        self._again = self._loop.call_later(_random.uniform(self._pause / 2, self._pause), self._dial)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _ready(self) -> None:
        self._was_up = True
        self._pause = _FIRST_PAUSE
        self._on_up()

    def _ended(self) -> None:
        self._connection = None
        was_up, self._was_up = self._was_up, False
        if was_up:
            self._on_down()
        if not self._closed:
            self._dial_later()

    def _drop(self, frames: list[bytes], reason: str) -> None:
        log.warning("%s has sent %d frames: %s", self._path.name, len(frames), reason)
