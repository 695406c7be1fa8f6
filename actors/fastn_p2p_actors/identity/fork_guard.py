"""Processes that protocol code forks from the identity's process: they end with it, and cannot pass for it.

A child that was forked has a copy of every socket. It would keep connections open whose end others wait for, and what
it read from them would be lost. So whatever of ours it has inherited is closed in it. Programs that are started with
``subprocess`` inherit nothing in the first place.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

from ..runtime.process_setup import die_with_parent

__all__ = ["guard_forked_children"]


def guard_forked_children(sockets: Path, leash: int | None) -> None:
    """Holds for every child that this process forks from now on.

    Args:
        sockets: the directory under which the daemon's sockets lie.
        leash: the descriptor of the leash, if there is one.
    """
    ours = os.fsencode(sockets) + b"/"
    pid = os.getpid()
    main = threading.main_thread()

    def in_child() -> None:
        if os.getppid() == pid and threading.current_thread() is main:
            # The kernel ends it with the thread that has forked it, which another thread may survive.
            with contextlib.suppress(OSError):
                die_with_parent()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            for each in list(Path("/proc/self/fd").iterdir()):
                descriptor = int(each.name)
                if descriptor == leash or _is_ours(descriptor, ours):
                    os.dup2(nothing, descriptor, inheritable=False)
        finally:
            os.close(nothing)

    os.register_at_fork(after_in_child=in_child)


def _is_ours(descriptor: int, directory: bytes) -> bool:
    """Whether it is a socket at, or connected to, a path below the directory."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family != socket.AF_UNIX:
                return False
            names = [copy.getsockname()]
            with contextlib.suppress(OSError):
                names.append(copy.getpeername())
        return any(os.fsencode(name).startswith(directory) for name in names if isinstance(name, str | bytes))
    except OSError:
        return False
