"""Connections to Unix sockets: made here, or handed over by another process.

An identity's process in the daemon may not make Unix sockets. It asks the supervisor, which connects for it. Whatever
runs there sets that once with ``set_opener``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

Opener: TypeAlias = Callable[[Path], Awaitable[socket.socket]]
"""Returns a connected, non-blocking stream socket. Raises OSError."""

_RETRY_SECONDS: Final = 0.02
"""Seconds between two attempts to connect to a socket with a full queue. The kernel does not signal free space."""
_opener: Opener | None = None


def set_opener(opener: Opener | None) -> None:
    """Have every connection of this process made by ``opener``; None to make them here again."""
    global _opener
    _opener = opener


def get_opener() -> Opener | None:
    """Return what makes this process's connections; None if it makes them itself."""
    return _opener


async def connect_unix(path: Path) -> socket.socket:
    """Return a non-blocking stream socket that is connected to the Unix socket at ``path``.

    While its queue is full, this tries again.

    Raises:
        OSError: the connection failed, or this process may not connect there.
    """
    if _opener is not None:
        return await _opener(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        while True:
            try:
                made.connect(str(path))
            except BlockingIOError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return made
    except BaseException:
        made.close()
        raise
