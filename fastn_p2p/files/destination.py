"""Where files are put: below one directory, complete or not at all, and never over others unless that is wanted."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from .failures import FileError, writing_failed
from .messages import Entry
from .names import parts_of
from .partial import Partial, partial_name
from .tree import Parts, Tree

__all__ = ["Destination"]

_MOST_DIRECTORIES: Final = 100_000
"""Directories of one transfer whose modes and times are set at its end; each of them takes memory until then."""
_SECOND: Final = 1_000_000_000


class Destination:
    """All of this blocks.

    Args:
        root: an existing directory.
        peer: ID52 of who sends: what another one has sent of a file is left alone.
        force: files replace what has their name.
        ours: those of the directories that are there already which get the modes and times of the other side's;
            None for all.
    """

    def __init__(self, root: Path, peer: str, *, force: bool = False, ours: Collection[str] | None = None) -> None:
        self._tree = Tree(root)
        self._peer = peer
        self._force = force
        self._ours = ours
        self._directories: dict[Parts, Entry] = {}

    def has(self, path: str, entry: Entry) -> bool:
        """Whether the file is there already: same size, same time of change. Only whole files get their time.

        Raises:
            FileError: ``Exists``: something else is there, and is not to be replaced; ``UnsafeName``,
                ``NotADirectory``, ``Unwritable``.
        """
        parts = parts_of(path)
        with self._tree.directory(parts[:-1], make=True) as above:
            try:
                there = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise writing_failed(error, path) from error
        if stat.S_ISREG(there.st_mode):
            if there.st_size == entry.size and _same_time(there.st_mtime_ns, entry.mtime_ns):
                return True
            if self._force:
                return False
            raise FileError("Exists", "another file has this name already", path)
        if stat.S_ISDIR(there.st_mode):
            raise FileError("Exists", "a directory has this name already", path)
        if self._force:
            return False
        raise FileError("Exists", "something else has this name already", path)

    def open(self, path: str) -> Partial:
        """What has arrived of the file, to go on with.

        Raises:
            FileError: ``Busy``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        with self._tree.directory(parts[:-1], make=True) as above:
            return Partial(above, parts[-1], self._peer, path)

    def commit(self, partial: Partial, mode: int, mtime_ns: int) -> None:
        """Raises like ``Partial.commit``."""
        partial.commit(mode, mtime_ns, force=self._force)

    def make_directory(self, path: str, entry: Entry) -> None:
        """Makes it, unless it is there. Its mode and time come with ``finish``: files are put into it before that.

        Raises:
            FileError: ``TooMany``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        if not parts:
            return
        if len(self._directories) >= _MOST_DIRECTORIES:
            raise FileError("TooMany", f"more than {_MOST_DIRECTORIES} directories in one transfer", path)
        if self._ours is not None and path not in self._ours and self._is_there(parts):
            return
        with self._tree.directory(parts, make=True):
            self._directories[parts] = entry

    @property
    def made(self) -> list[str]:
        """Directories whose modes and times are set at the end."""
        return ["/".join(parts) for parts in self._directories]

    def finish(self) -> None:
        """Gives directories their modes and times. Where that fails they keep what they have."""
        for parts, entry in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            with contextlib.suppress(FileError, OSError), self._tree.directory(parts) as directory:
                os.fchmod(directory, entry.mode)
                os.utime(directory, ns=(entry.mtime_ns, entry.mtime_ns))
        self._directories.clear()

    def discard(self, path: str) -> None:
        """Deletes what has arrived of a file that will not be completed."""
        with contextlib.suppress(FileError, OSError):
            parts = parts_of(path)
            with self._tree.directory(parts[:-1]) as above:
                os.unlink(partial_name(parts[-1], self._peer), dir_fd=above)

    def _is_there(self, parts: Parts) -> bool:
        try:
            self._tree.stat(parts)
        except FileError as error:
            if error.kind != "NotFound":
                raise
            return False
        return True


def _same_time(ours: int, theirs: int) -> bool:
    """Some file systems keep whole seconds, or every other one."""
    return ours == theirs or (ours % _SECOND == 0 and 0 <= theirs - ours < 2 * _SECOND)
