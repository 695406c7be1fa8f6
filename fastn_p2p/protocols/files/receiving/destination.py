"""Destination directory of received files: they appear complete or not at all, and replace others only by ``force``."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from ..errors import FileError, write_error
from ..file_system.checkpoints import Checkpoints
from ..file_system.safe_paths import parts_of
from ..file_system.safe_tree import Parts, SafeTree, set_times
from ..file_system.source_file import SourceFile
from ..messages import Entry
from .arrivals import Seal, is_there, seal_of
from .partial_file import PartialFile, partial_name

_MOST_DIRECTORIES: Final = 100_000
"""Directories of one transfer whose modes and times are set at its end; each needs memory until then."""


class Destination:
    """Directory that the files of one transfer are written to. All methods block.

    Args:
        root: an existing directory.
        peer: ID52 of the sender; each sender has partial files of its own.
        force: received files replace other files of the same name.
        created_directories: directories that an earlier attempt has made. These and new ones get the modes and times
            of the sender's directories; other directories keep their modes.
        date_all: directories that existed before get the times of the sender's directories too.
        checkpoints: cache of hash states for partial files and for files that are compared.
        on_arrival: called with path and seal of each file that has arrived or was there already; in any thread.
    """

    def __init__(
        self,
        root: Path,
        peer: str,
        *,
        force: bool = False,
        created_directories: Collection[str] = (),
        date_all: bool = False,
        checkpoints: Checkpoints | None = None,
        on_arrival: Callable[[str, Seal], object] = lambda _path, _seal: None,
    ) -> None:
        self._tree = SafeTree(root)
        self._peer = peer
        self.force = force
        self._created_before = created_directories
        self._date_all = date_all
        self._checkpoints = checkpoints
        self._on_arrival = on_arrival
        self._made: set[Parts] = set()
        self._directories: dict[Parts, Entry] = {}
        self._kept: dict[Parts, Entry] = {}
        """Directories that existed before and whose times are set at the end."""

    def find(self, path: str, size: int) -> SourceFile | None:
        """Open the existing file of that path and size, whose content may be the same.

        Returns:
            None if there is no such file, or if it is replaced in any case.

        Raises:
            FileError: ``Exists``: another file has the name and must not be replaced; ``UnsafeName``,
                ``NotADirectory``, ``Unwritable``.
        """
        parts = parts_of(path)
        try:
            with self._tree.directory(parts[:-1]) as above:
                there = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
                is_partial = self.force and _size_at(partial_name(parts[-1], self._peer), above)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise write_error(error, path) from error
        except FileError as error:
            if error.kind == "NotFound":
                return None
            raise
        if stat.S_ISDIR(there.st_mode):
            raise FileError("Exists", "a directory has this name already", path)
        if stat.S_ISREG(there.st_mode) and there.st_size == size and not is_partial:
            with contextlib.suppress(FileError):  # a file that cannot be read cannot be compared
                return SourceFile(self._tree, parts, checkpoints=self._checkpoints)
        if self.force:
            return None
        what = "another file" if stat.S_ISREG(there.st_mode) else "something else"
        raise FileError("Exists", f"{what} has this name already", path)

    def open(self, path: str) -> PartialFile:
        """Open the partial file, to continue it.

        Raises:
            FileError: ``Busy``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        with self._tree.directory(parts[:-1], make=True, made=self._made) as above:
            return PartialFile(above, parts[-1], self._peer, path, self._checkpoints)

    def keeps(self, path: str, arrived: Mapping[str, Seal]) -> bool:
        """Return whether the file has arrived before and was not changed since."""
        return is_there(self._tree, path, arrived)

    def confirm(self, path: str, there: SourceFile) -> None:
        """Report an existing file that has the offered content."""
        self._on_arrival(path, seal_of(there.version))

    def commit(self, path: str, partial: PartialFile, mode: int, mtime_ns: int, rest: int) -> None:
        """Give a complete file its name, and report it.

        Raises:
            FileError: ``Exists``, ``DiskFull``, ``Unwritable``; the partial file is kept.
        """
        status = partial.commit(mode, mtime_ns, rest=rest, force=self.force)
        self._on_arrival(path, seal_of(status))

    def make_directory(self, path: str, entry: Entry) -> None:
        """Make a directory unless it exists. ``finish`` sets its mode and time, after files were written into it.

        Raises:
            FileError: ``TooMany``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        if not parts:
            return
        if len(self._directories) + len(self._kept) >= _MOST_DIRECTORIES:
            raise FileError("TooMany", f"more than {_MOST_DIRECTORIES} directories in one transfer", path)
        kept = path not in self._created_before and parts not in self._made and self._is_there(parts)
        with self._tree.directory(parts, make=True, made=self._made):
            if not kept:
                self._directories[parts] = entry
            elif self._date_all:
                self._kept[parts] = entry

    @property
    def created_directories(self) -> list[str]:
        """Directories that this transfer has made, now or in an earlier attempt."""
        return ["/".join(parts) for parts in self._directories]

    def finish(self) -> None:
        """Set modes and times of directories. Failures are ignored."""
        everything = {**self._directories, **self._kept}
        for parts, entry in sorted(everything.items(), key=lambda item: -len(item[0])):
            with contextlib.suppress(FileError, OSError), self._tree.directory(parts) as directory:
                if parts in self._directories:
                    os.fchmod(directory, entry.mode)
                set_times(directory, entry.mtime_ns, entry.mtime_rest)
        self._directories.clear()
        self._kept.clear()

    def remove_empty(self, paths: Collection[str]) -> None:
        """Remove those of the directories that are empty."""
        for path in sorted(paths, key=len, reverse=True):
            with contextlib.suppress(FileError, OSError):
                parts = parts_of(path)
                with self._tree.directory(parts[:-1]) as above:
                    os.rmdir(parts[-1], dir_fd=above)

    def discard(self, path: str) -> None:
        """Delete the partial file of a path."""
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


def _size_at(name: str, directory: int) -> int:
    """Return the size of a file of an open directory, 0 when there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
