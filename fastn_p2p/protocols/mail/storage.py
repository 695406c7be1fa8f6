"""Directory of a mailbox: the binding's workspace, or a private one below ``storage_dir``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from fastn_p2p_actors.storage.atomic_files import sync_directory, write_atomically
from fastn_p2p_client.errors import StorageFailed
from fastn_p2p_client.keys import PublicKey

FILE: Final = "mail.sqlite"
_MARKER: Final = "directory"
"""File in the workspace that holds the path of the directory, when that is elsewhere."""
_LOCK: Final = "lock"
_MOVING: Final = "mail.moving"


def check_storage_dir(storage_dir: str) -> None:
    """Check that a private directory can be made in ``storage_dir``.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if not storage_dir:
        return
    at = " - at `$.storage_dir`"
    try:
        path = Path(storage_dir).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}{at}") from None
    if "\0" in storage_dir or not path.is_absolute():
        raise ValueError(f"{storage_dir!r} is not an absolute path{at}")
    if not path.is_dir():
        raise ValueError(f"{storage_dir!r} is not an existing directory: make it, or choose another one{at}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"{storage_dir!r} cannot be written to by this user: choose another directory{at}")


class Storage:
    """Directory that holds the mail of one binding. All methods block.

    Args:
        workspace: workspace of the binding.
        key, instance: name the private directory: ``storage_dir/ID52/INSTANCE``.
    """

    def __init__(self, workspace: Path, key: PublicKey, instance: str) -> None:
        self._workspace = workspace
        self._names = key.id52, instance
        self._lock: int | None = None

    @property
    def directory(self) -> Path:
        """Directory in which the mail is now."""
        try:
            return Path((self._workspace / _MARKER).read_text("utf-8", "surrogateescape"))
        except FileNotFoundError:
            return self._workspace

    def wanted(self, storage_dir: str) -> Path:
        """Return the directory in which the mail should be."""
        return Path(storage_dir).expanduser().joinpath(*self._names) if storage_dir else self._workspace

    def prepare(self, storage_dir: str) -> Path:
        """Lock the wanted directory, and move the mail there if it is elsewhere; return the path of its file.

        The copy is complete and synced before the marker refers to it, so a crash loses nothing.

        Raises:
            StorageFailed: the mail cannot be moved, or another process uses it. It stays where it was.
        """
        wanted = self.wanted(storage_dir)
        try:
            if wanted != self._workspace:
                self._lock_directory(wanted)
            if wanted != self.directory:
                self._move(self.directory, wanted)
            elif wanted != self._workspace:
                _unlink(self._workspace)  # remains of a move that a crash interrupted
        except (OSError, sqlite3.Error) as error:
            self.release()
            raise StorageFailed(path=str(wanted), reason=getattr(error, "strerror", None) or str(error)) from error
        except BaseException:
            self.release()
            raise
        return wanted / FILE

    def hold(self) -> None:
        """Lock the directory in which the mail is.

        Raises:
            StorageFailed, OSError: another process uses it.
        """
        if self.directory != self._workspace:
            self._lock_directory(self.directory)

    def release(self) -> None:
        """Unlock the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Delete the mail that is outside of the workspace.

        Raises:
            OSError: it cannot be deleted.
        """
        directory = self.directory
        if directory != self._workspace:
            _unlink(directory)
            (directory / f"{FILE}.moved").unlink(missing_ok=True)  # its mail was moved to PostgreSQL
            for each in (directory, directory.parent):
                with contextlib.suppress(OSError):
                    each.rmdir()

    def _lock_directory(self, directory: Path) -> None:
        """Make a private directory and lock it: a second daemon with the same identity would deliver the same mail."""
        self.release()
        for each in (directory.parent, directory):
            with contextlib.suppress(FileExistsError):
                each.mkdir(0o700)
            found = each.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise StorageFailed(path=str(each), reason="it exists already, and is not a directory of this user")
            each.chmod(0o700)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StorageFailed(path=str(directory), reason="another daemon or binding uses it") from None
        self._lock = lock

    def _move(self, old: Path, new: Path) -> None:
        if (old / FILE).exists():
            if (new / FILE).exists():
                reason = f"it contains mail already, and {old} does too: move one of them away"
                raise StorageFailed(path=str(new), reason=reason)
            moving = new / _MOVING
            moving.unlink(missing_ok=True)
            os.close(os.open(moving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            source, target = sqlite3.connect(old / FILE), sqlite3.connect(moving)
            with contextlib.closing(source), contextlib.closing(target):
                source.backup(target)
            descriptor = os.open(moving, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            moving.replace(new / FILE)
            sync_directory(new)
        if new == self._workspace:
            (self._workspace / _MARKER).unlink()
        else:
            write_atomically(self._workspace / _MARKER, os.fsencode(new))
        _unlink(old)
        if old != self._workspace:
            for each in (old, old.parent):
                with contextlib.suppress(OSError):
                    each.rmdir()


def _unlink(directory: Path) -> None:
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", _MOVING, _LOCK):
        (directory / name).unlink(missing_ok=True)
