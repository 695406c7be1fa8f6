"""Where files are put: below one directory, complete or not at all, and never over others unless that is wanted."""

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
"""Directories of one transfer whose modes and times are set at its end; each of them takes memory until then."""


class Destination:
    """All of this blocks.

    Args:
        root: an existing directory.
        peer: ID52 of who sends: what another one has sent of a file is left alone.
        force: files replace what has their name.
        ours: directories that an earlier attempt has made. Those and what is made now get the modes and times of the
            other side's; the others keep their modes.
        date_all: directories that were there get the times of the other side's.
        checkpoints: where the states of hashes are kept, of what has arrived and of what is compared.
        on_arrival: gets path and seal of each file that has come, or that was found to be there; in some thread.
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
        self._ours = created_directories
        self._date_all = date_all
        self._checkpoints = checkpoints
        self._on_arrival = on_arrival
        self._made: set[Parts] = set()
        self._directories: dict[Parts, Entry] = {}
        self._kept: dict[Parts, Entry] = {}
        """Directories that were there before, and whose times are set at the end."""

    def find(self, path: str, size: int) -> SourceFile | None:
        """Open the file of that size that has the name already: its content says whether it is the same file.

        Returns:
            None when nothing is there, or what is there is to be replaced whatever it is.

        Raises:
            FileError: ``Exists``: something else is there, and is not to be replaced; ``UnsafeName``,
                ``NotADirectory``, ``Unwritable``.
        """
        parts = parts_of(path)
        try:
            with self._tree.directory(parts[:-1]) as above:
                there = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
                begun = self.force and _size_at(partial_name(parts[-1], self._peer), above)
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
        if stat.S_ISREG(there.st_mode) and there.st_size == size and not begun:
            with contextlib.suppress(FileError):  # it cannot be read, so it cannot be compared either
                return SourceFile(self._tree, parts, checkpoints=self._checkpoints)
        if self.force:
            return None
        what = "another file" if stat.S_ISREG(there.st_mode) else "something else"
        raise FileError("Exists", f"{what} has this name already", path)

    def open(self, path: str) -> PartialFile:
        """What has arrived of the file, to go on with.

        Raises:
            FileError: ``Busy``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        with self._tree.directory(parts[:-1], make=True, made=self._made) as above:
            return PartialFile(above, parts[-1], self._peer, path, self._checkpoints)

    def keeps(self, path: str, arrived: Mapping[str, Seal]) -> bool:
        """Return whether the file has come before, and nobody has touched it since."""
        return is_there(self._tree, path, arrived)

    def confirm(self, path: str, there: SourceFile) -> None:
        """Note that the file that is there has the content that it should have."""
        self._on_arrival(path, seal_of(there.version))

    def commit(self, path: str, partial: PartialFile, mode: int, mtime_ns: int, rest: int) -> None:
        """Raises like ``PartialFile.commit``."""
        status = partial.commit(mode, mtime_ns, rest=rest, force=self.force)
        self._on_arrival(path, seal_of(status))

    def make_directory(self, path: str, entry: Entry) -> None:
        """Makes it, unless it is there. Its mode and time come with ``finish``: files are put into it before that.

        Raises:
            FileError: ``TooMany``, ``UnsafeName``, ``NotADirectory``, ``Unwritable``, ``DiskFull``.
        """
        parts = parts_of(path)
        if not parts:
            return
        if len(self._directories) + len(self._kept) >= _MOST_DIRECTORIES:
            raise FileError("TooMany", f"more than {_MOST_DIRECTORIES} directories in one transfer", path)
        kept = path not in self._ours and parts not in self._made and self._is_there(parts)
        with self._tree.directory(parts, make=True, made=self._made):
            if not kept:
                self._directories[parts] = entry
            elif self._date_all:
                self._kept[parts] = entry

    @property
    def created_directories(self) -> list[str]:
        """Directories whose modes and times are set at the end."""
        return ["/".join(parts) for parts in self._directories]

    def finish(self) -> None:
        """Gives directories their modes and times. Where that fails they keep what they have."""
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


def _size_at(name: str, directory: int) -> int:
    """Return the size of a file of an open directory, 0 when there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
