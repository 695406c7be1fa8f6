"""Connections to Unix sockets: made here, or handed over by another process.

An identity's process in the daemon may not make Unix sockets: the supervisor connects for it. The process sets that
once with ``set_opener``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import HomeUnusable
from ..private_paths import directory_closed_to_owner

Opener: TypeAlias = Callable[[Path], Awaitable[socket.socket]]
"""Return a connected, non-blocking stream socket. Raises OSError."""

_RETRY_SECONDS: Final = 0.02
"""Seconds between two attempts to connect to a socket with a full queue. The kernel does not signal free space."""
NOT_ALLOWED: Final = "this user may not connect to it. Its group may: ask root to add you, and log in again"
_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""
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
        closed = directory_closed_to_owner(path)
        reason = NOT_ALLOWED if closed is None else f"the mode of {closed} keeps its owner out: chmod u+rwx {closed}"
        raise HomeUnusable(path=str(path), reason=reason) from None
    check_listener(sock, path)
