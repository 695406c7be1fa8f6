"""Lines of a log file and of the old files that rotation has left, and those that are added later."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

_OLD_FILES: Final = 9
"""Numbers of old files that are looked for. Fewer are kept."""


class RotatedFile:
    """Reader of a file that is rotated, from its oldest line to the newest; a context manager.

    Args:
        path: the newest file. The older ones have the numbers 1, 2, … behind its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        _close(self._files)
        self._files.clear()

    def read(self) -> Iterator[bytes]:
        """Yield each line that was completed since the last call; at the first call all of them.

        A file that was cut, as a process does that can make no new one, is read again from its beginning.

        Raises:
            OSError: a file cannot be read.
        """
        while True:
            for opened in self._files:
                yield from _lines(opened)
            _close(self._files[:-1])
            del self._files[:-1]
            if self._files and self._is_current(self._files[0]):
                return
            newer = self._newer(self._open_files())
            if not newer:
                return
            self._files += newer

    def _open_files(self) -> list[BinaryIO]:
        """Open all files, the oldest first.

        The newest one is opened first: if the log is rotated meanwhile, a file is found twice, and none is missed.
        """
        found: dict[tuple[int, int], BinaryIO] = {}
        try:
            for number in range(_OLD_FILES + 1):
                name = f"{self._path.name}.{number}" if number else self._path.name
                with suppress(FileNotFoundError):
                    opened = self._path.with_name(name).open("rb")
                    if found.setdefault(_identity(opened), opened) is not opened:
                        opened.close()
        except BaseException:
            _close(found.values())
            raise
        return list(reversed(found.values()))

    def _newer(self, files: list[BinaryIO]) -> list[BinaryIO]:
        """Return the files that are newer than the one that is read, and close the others."""
        identities = [_identity(each) for each in files]
        known = map(_identity, self._files)
        first = next((identities.index(each) + 1 for each in known if each in identities), 0)
        _close(files[:first])
        return files[first:]

    def _is_current(self, opened: BinaryIO) -> bool:
        """Return False once the file was rotated."""
        try:
            return os.path.samestat(os.fstat(opened.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def _identity(opened: BinaryIO) -> tuple[int, int]:
    found = os.fstat(opened.fileno())
    return found.st_dev, found.st_ino


def _close(files: Iterable[BinaryIO]) -> None:
    for each in files:
        each.close()


def _lines(opened: BinaryIO) -> Iterator[bytes]:
    if os.fstat(opened.fileno()).st_size < opened.tell():
        opened.seek(0)
    while True:
        start = opened.tell()
        data = opened.readline()
        if not data.endswith(b"\n"):
            opened.seek(start)  # the rest of it is being written
            return
        yield data
