"""Guard for children that protocol code forks: they end with the identity's process and cannot act for it.

A forked child has a copy of every socket. It would keep connections open whose end others wait for, and would take
bytes from them. So every inherited socket of the daemon is closed in the child. Programs started with ``subprocess``
inherit none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

from ..runtime.process_setup import die_with_parent


def guard_forked_children(sockets: Path, channel: int | None) -> None:
    """Guard every child that this process forks from now on.

    Args:
        sockets: directory of the daemon's sockets.
        channel: descriptor of the control channel, if there is one.
    """
    ours = os.fsencode(sockets) + b"/"
    pid = os.getpid()
    main = threading.main_thread()

    def in_child() -> None:
        if os.getppid() == pid and threading.current_thread() is main:
            # The kernel ends it with the thread that forked it, so only a fork of the main thread does this.
            with contextlib.suppress(OSError):
                die_with_parent()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            for each in list(Path("/proc/self/fd").iterdir()):
                descriptor = int(each.name)
                if descriptor == channel or _is_ours(descriptor, ours):
                    os.dup2(nothing, descriptor, inheritable=False)
        finally:
            os.close(nothing)

    os.register_at_fork(after_in_child=in_child)


def _is_ours(descriptor: int, directory: bytes) -> bool:
    """Return whether it is a socket bound or connected to a path in the directory."""
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
