"""Work of a process that a fork of it does, so that what the work takes and touches ends with the fork."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

MAX_RESULT: Final = 16 * 1024 * 1024
"""Bytes of the largest result."""
_LENGTH_BYTES: Final = 4
_PIECE: Final = 65536


def run_in_fork(work: Callable[[], tuple[bytes, int]]) -> tuple[bytes, int] | None:
    """Run the work in a fork of this process, and return its result once the fork has ended. This blocks.

    Call it while this process has one thread. The work gets copies of its memory and descriptors, and changes nothing
    in it.

    Args:
        work: returns bytes, and a descriptor that this process gets a copy of; -1 for none.

    Returns:
        Result of the work. None if it raised something, if its result was too large, or if there was no process for it.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                return None
            if pid == 0:
                _work(work, theirs)
        try:
            return _receive(ours)
        except (OSError, EOFError):
            return None
        finally:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _work(work: Callable[[], tuple[bytes, int]], connection: socket.socket) -> None:
    code = 1
    try:
        result, descriptor = work()
        header = len(result).to_bytes(_LENGTH_BYTES, "little")
        socket.send_fds(connection, [header], [descriptor] if descriptor >= 0 else [])
        connection.sendall(result)
        code = 0
    finally:
        os._exit(code)


def _receive(connection: socket.socket) -> tuple[bytes, int]:
    header, descriptors, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 1)
    descriptor = descriptors[0] if descriptors else -1
    try:
        length = int.from_bytes(header, "little")
        if len(header) < _LENGTH_BYTES or length > MAX_RESULT:
            raise EOFError
        parts: list[bytes] = []
        while length:
            parts.append(connection.recv(min(length, _PIECE)))
            if not parts[-1]:
                raise EOFError
            length -= len(parts[-1])
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return b"".join(parts), descriptor
