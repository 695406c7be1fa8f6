"""Affinity of clients, sessions and servers to one process and one event loop, and the release of abandoned ones.

**Fork.** A child inherits the sockets of its parent. If it used them, each would read replies to the other. If it only
kept them open, the daemon would not notice the end of the parent. If it unregistered them from epoll, which parent and
child share, the parent would receive nothing any more. So in the child ``dup2`` replaces each inherited socket by one
that is not connected. The number stays in use, and nothing that the child does with it reaches the parent.

**Loops.** ``loop.close()`` does not notify transports. Objects of a closed loop are released by the garbage collector,
or at the latest when the next client is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from typing import Final, NamedTuple
from weakref import WeakSet

from .errors import UsedElsewhere

running_loop: Final = asyncio._get_running_loop
"""Returns the event loop that runs in this thread, or None. Unlike ``asyncio.get_running_loop`` it does not raise."""

_PACKAGE: Final = __name__.partition(".")[0] + "."


class LoopBound:
    """Base of objects that are open in one event loop of one process. After ``_track``, the two methods are called."""

    def _track(self) -> None:
        with _lock:
            _tracked.add(self)

    def _after_fork(self) -> None:
        """Detach from the parent, in a forked child that has a copy of its object. Must neither send nor raise."""

    def _release_if_ended(self) -> None:
        """Release sockets and memory if the event loop has been closed."""


_tracked: Final[WeakSet[LoopBound]] = WeakSet()
_lock = threading.Lock()


def release_ended() -> None:
    """Release all objects whose event loop has been closed."""
    with _lock:
        tracked = list(_tracked)
    for each in tracked:
        each._release_if_ended()


def used_elsewhere(what: str, pid: int, loop: asyncio.AbstractEventLoop | None) -> UsedElsewhere:
    """Return the error for an object (``what``, for instance ``"this client"``) of another process or event loop."""
    if pid != os.getpid():
        reason = f"it belongs to process {pid}, and this is process {os.getpid()}. Make one after the fork"
    elif loop is not None and loop.is_closed():
        reason = "it belongs to an event loop that has ended. Make one in each event loop, and close it there"
    else:
        reason = "it belongs to another event loop. Make one in each event loop"
    return UsedElsewhere(what=what, reason=reason)


def caller_location() -> str:
    """Return ``file:line`` of the innermost code on the stack that is not part of this library."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Descriptor(NamedTuple):
    """A file descriptor, and the file that it referred to when this object was made."""

    number: int
    device: int
    inode: int

    @classmethod
    def of(cls, number: int) -> Descriptor:
        found = os.fstat(number)
        return cls(number, found.st_dev, found.st_ino)

    def is_current(self) -> bool:
        """Return whether the number still refers to that file."""
        try:
            return Descriptor.of(self.number) == self
        except OSError:
            return False


def sever(inherited: Descriptor) -> None:
    """Replace a socket that this forked child shares with its parent by one that is not connected.

    If the number refers to another file by now, nothing is done. An event loop closes a descriptor before its socket
    object knows, and the number can be reused: in a child that is about to execute a program, by the pipe to its
    standard input.
    """
    if not inherited.is_current():
        return
    try:
        placeholder, peer = socket.socketpair()
    except OSError:  # no free descriptor
        os.close(inherited.number)
        return
    with placeholder, peer:
        os.dup2(placeholder.fileno(), inherited.number, inheritable=False)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may hold it
    for each in list(_tracked):
        with contextlib.suppress(Exception):
            each._after_fork()


os.register_at_fork(after_in_child=_after_fork)
