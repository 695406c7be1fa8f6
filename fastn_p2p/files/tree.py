"""A directory and what is below it, walked part by part so that no link leads out of it.

All of it blocks. Nothing here takes a path that ``names`` has not checked.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from .failures import FileError, reading_failed, writing_failed
from .hashing import short_digest
from .messages import Entry

__all__ = ["Parts", "Tree", "entry_of", "tag_of"]

Parts: TypeAlias = tuple[str, ...]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW: Final = _DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777


def tag_of(status: os.stat_result) -> str:
    """Differs between two versions of a file, unless somebody sets the time of the later one back to the earlier's."""
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return short_digest(*(b"%d" % number for number in numbers))


def entry_of(path: str, status: os.stat_result) -> Entry:
    """How it is described to the other side."""
    if stat.S_ISREG(status.st_mode):
        mode = status.st_mode & _PERMISSIONS
        return Entry(path, "file", status.st_size, status.st_mtime_ns, mode, tag_of(status))
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "directory", 0, status.st_mtime_ns, status.st_mode & _PERMISSIONS)
    return Entry(path, "other")


class Tree:
    """The directory ``root``, which may itself be reached through links: its owner has chosen it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def directory(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """The descriptor of a directory below the root, closed at the end.

        Args:
            make: directories that are missing are made, and are on disk then.

        Raises:
            FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``; with ``make`` also ``Unwritable``, ``DiskFull``.
        """
        failed = writing_failed if make else reading_failed
        path = "/".join(parts)
        try:
            current = os.open(self.root, _DIRECTORY)
        except OSError as error:
            raise failed(error, path) from error
        try:
            for part in parts:
                try:
                    below = _enter(current, part, make=make)
                except OSError as error:
                    raise failed(error, path) from error
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def stat(self, parts: Parts) -> Entry:
        """What is there, under an empty path.

        Raises:
            FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``.
        """
        return entry_of("", self._status(parts))

    def open_file(self, parts: Parts) -> tuple[int, os.stat_result]:
        """A descriptor to read the file with, and what the file is. Never waits for whoever writes to a pipe.

        Raises:
            FileError: ``NotAFile`` and as ``stat``.
        """
        path = "/".join(parts)
        if not stat.S_ISREG(self._status(parts).st_mode):  # opening a device alone can do something to it
            raise FileError("NotAFile", "it is not a file, and only files can be read", path)
        with self.directory(parts[:-1]) as above:
            try:
                descriptor = os.open(parts[-1], _FILE, dir_fd=above)
            except OSError as error:
                raise reading_failed(error, path) from error
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
                raise reading_failed(error, "/".join(parts)) from error


def _enter(directory: int, part: str, *, make: bool) -> int:
    try:
        return os.open(part, _BELOW, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, dir_fd=directory)
        os.fsync(directory)
    return os.open(part, _BELOW, dir_fd=directory)
