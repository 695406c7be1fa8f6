"""Directory tree that no symbolic link leads out of: paths are opened component by component (``O_NOFOLLOW``).

All functions block. Callers check paths with ``safe_paths`` first.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from ..digest import short_digest
from ..errors import FileError, read_error, write_error
from ..messages import FARTHEST_TIME, Entry

Parts: TypeAlias = tuple[str, ...]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW: Final = _DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777
_LEAST_INT: Final = -(1 << 63)
_MOST_INT: Final = (1 << 64) - 1
"""Range of integers that msgpack can encode."""


def version_tag(status: os.stat_result) -> str:
    """Return a text that differs between two versions of a file, unless a program resets its time of change."""
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return short_digest(*(b"%d" % number for number in numbers))


def time_of(status: os.stat_result) -> tuple[int, int]:
    """Return the time of change: nanoseconds within ``FARTHEST_TIME``, and the rest beyond."""
    near = max(-FARTHEST_TIME, min(FARTHEST_TIME, status.st_mtime_ns))
    return near, max(_LEAST_INT, min(_MOST_INT, status.st_mtime_ns - near))


def set_times(descriptor: int, mtime_ns: int, rest: int) -> None:
    """Set the time of change of a file or directory to the one that a peer has sent, if the file system can."""
    with contextlib.suppress(OSError, OverflowError, ValueError):  # only the content must be right
        os.utime(descriptor, ns=(mtime_ns + rest, mtime_ns + rest))


def entry_of(path: str, status: os.stat_result) -> Entry:
    """Return the description of a file or directory that is sent to the peer."""
    mtime_ns, rest = time_of(status)
    if stat.S_ISREG(status.st_mode):
        mode = status.st_mode & _PERMISSIONS
        return Entry(path, "file", status.st_size, mtime_ns, mode, version_tag(status), rest)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "directory", 0, mtime_ns, status.st_mode & _PERMISSIONS, "", rest)
    return Entry(path, "other")


class SafeTree:
    """Tree below the directory ``root``. The path of ``root`` itself may contain links: its owner has chosen it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def directory(self, parts: Parts, *, make: bool = False, made: set[Parts] | None = None) -> Iterator[int]:
        """Yield the descriptor of a directory below the root, and close it at the end.

        Args:
            make: make missing directories, and sync them to disk.
            made: receives the directories that were made.

        Raises:
            FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``; with ``make`` also ``Unwritable``, ``DiskFull``.
        """
        failed = write_error if make else read_error
        try:
            current = os.open(self.root, _DIRECTORY)
        except OSError as error:
            raise failed(error, "/".join(parts), "") from error
        try:
            for number, part in enumerate(parts, 1):
                try:
                    below = _enter(current, part, parts[:number], make=make, made=made)
                except OSError as error:
                    raise failed(error, "/".join(parts), "/".join(parts[:number])) from error
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def stat(self, parts: Parts) -> Entry:
        """Return a description of a file or directory, with an empty path.

        Raises:
            FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``.
        """
        return entry_of("", self._status(parts))

    def open_file(self, parts: Parts) -> tuple[int, os.stat_result]:
        """Return a descriptor to read a file with, and its status. Never waits for the writer of a pipe.

        Raises:
            FileError: ``NotAFile``, ``NotFound``, ``NotADirectory``, ``Unreadable``.
        """
        path = "/".join(parts)
        if not stat.S_ISREG(self._status(parts).st_mode):  # opening a device can have an effect on it
            raise FileError("NotAFile", "it is not a file, and only files can be read", path)
        with self.directory(parts[:-1]) as above:
            try:
                descriptor = os.open(parts[-1], _FILE, dir_fd=above)
            except OSError as error:
                raise read_error(error, path) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise FileError("NotAFile", "it is not a file, and only files can be read", path)
        return descriptor, status

    def _status(self, parts: Parts) -> os.stat_result:
        if not parts:
            with self.directory(()) as root:
                return os.fstat(root)
        with self.directory(parts[:-1]) as above:
            try:
                return os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
            except OSError as error:
                raise read_error(error, "/".join(parts)) from error


def _enter(directory: int, part: str, parts: Parts, *, make: bool, made: set[Parts] | None) -> int:
    try:
        return os.open(part, _BELOW, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, dir_fd=directory)
        if made is not None:
            made.add(parts)
        os.fsync(directory)
    return os.open(part, _BELOW, dir_fd=directory)
