"""The daemon's directories and its lock: made, checked and taken before anything else happens."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import DaemonAlreadyRunning, HomeUnusable
from fastn_p2p_client.home import Home

__all__ = ["Premises"]

PRIVATE: Final = 0o700
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class Premises:
    """One daemon's hold on its home, from ``take`` to ``leave``."""

    def __init__(self, home: Home, lock: int) -> None:
        self.home = home
        self._lock = lock

    @classmethod
    def take(cls, home: Home) -> Premises:
        """Makes what is missing, takes the lock and removes the sockets that a former daemon left behind.

        The kernel gives the lock back when the process ends, however it ends.

        Raises:
            DaemonAlreadyRunning: another daemon holds the lock.
            HomeUnusable: the home is somebody else's, others may write to it, or the disk does not take it.
        """
        at = home.path
        try:
            _own_directory(home.path)
            at = home.lock
            lock = _lock(home)
            for at in (home.path / "run", home.logs, home.identities, home.peers, home.vault):
                _own_directory(at)
                at.chmod(PRIVATE)
            at = home.sockets
            _place_sockets(home)
        except OSError as error:
            raise HomeUnusable(path=str(at), reason=error.strerror or str(error)) from error
        return cls(home, lock)

    def leave(self) -> None:
        """Removes what is left of the sockets and gives the lock back.

        The lock's file stays: removing it would let two daemons hold locks on two files.
        """
        with suppress(OSError):
            _remove_sockets(self.home)
            if self.home.sockets != self.home.path:
                (self.home.sockets / "run").rmdir()
                self.home.sockets.rmdir()
        os.ftruncate(self._lock, 0)
        os.close(self._lock)


def _lock(home: Home) -> int:
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise DaemonAlreadyRunning(home=str(home.path), pid=int(text) if text.isdecimal() else 0) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _own_directory(path: Path) -> None:
    """Makes the directory (0700) if it is missing; refuses one that others own or may write to."""
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.getuid():
        raise HomeUnusable(path=str(path), reason=f"it belongs to uid {found.st_uid}, this is uid {os.getuid()}")
    if found.st_mode & WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise HomeUnusable(
            path=str(path), reason=f"others may write to it (mode {mode:04o}); `chmod go-w {path}` if that is not meant"
        )


def _place_sockets(home: Home) -> None:
    home.sockets_note.unlink(missing_ok=True)  # the one of an earlier daemon, which may have had another place
    if home.sockets != home.path:
        for directory in (home.sockets.parent, home.sockets, home.sockets / "run"):
            if directory.is_symlink():
                raise HomeUnusable(
                    path=str(directory), reason="it is a symbolic link, in a directory that others share"
                )
            _own_directory(directory)
            directory.chmod(PRIVATE)
        note = home.sockets_note.with_suffix(".tmp")
        note.write_text(f"{home.sockets}\n")
        note.replace(home.sockets_note)
    _remove_sockets(home)


def _remove_sockets(home: Home) -> None:
    for stale in (home.control_socket, *(home.sockets / "run").iterdir()):
        if stale.is_socket():
            stale.unlink()
