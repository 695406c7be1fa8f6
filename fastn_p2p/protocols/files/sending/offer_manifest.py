"""Manifest of an offer: local files and directories, and where they are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..._shared.path_names import join_path
from ..errors import FileError
from ..file_system.checkpoints import Checkpoints
from ..file_system.path_set import PathSet
from ..file_system.safe_paths import checked_name, parts_of
from ..file_system.safe_tree import Parts, SafeTree
from ..file_system.source_file import SourceFile
from ..file_system.walk import walk
from ..messages import MAX_OFFER, Entry, Skipped


class _Root(NamedTuple):
    tree: SafeTree
    parts: Parts


class OfferManifest:
    """Files and directories to offer. Made by ``scan``.

    Attributes:
        entries: files and directories, in order of paths.
        skipped: entries below the directories that cannot be transferred.
    """

    def __init__(self, tops: dict[str, _Root], entries: list[Entry], skipped: list[Skipped]) -> None:
        self._tops = tops
        self._checkpoints = Checkpoints()
        self.entries = entries
        self.skipped = skipped
        self._files = {entry.path: entry for entry in entries if entry.kind == "file"}

    @classmethod
    def scan(cls, paths: Sequence[Path]) -> OfferManifest:
        """Scan files and directories; each is offered under its last component. Blocks.

        Raises:
            FileError: ``NotFound``, ``Unreadable``, ``NotAFile``, ``UnsafeName``: one of the paths cannot be offered;
                ``Collision``: two of the names are too much alike; ``TooMany``: more than ``MAX_OFFER`` entries.
        """
        tops: dict[str, _Root] = {}
        entries: list[Entry] = []
        skipped: list[Skipped] = []
        seen = PathSet()
        for path in paths:
            name, top = _top(path)
            for found in walk(*top):
                if isinstance(found, Skipped):
                    skipped.append(Skipped(join_path(name, found.path), found.reason))
                    continue
                at = join_path(name, found.path)
                try:
                    parts_of(at)
                    new = seen.add(at, directory=found.kind == "directory")
                except FileError as error:
                    if not found.path:
                        raise
                    skipped.append(Skipped(at, error.message))  # the rest of the directory is offered
                    continue
                if not new:
                    raise FileError("Collision", "two of the files would have the same name at the peer", at)
                if len(entries) >= MAX_OFFER:
                    raise FileError("TooMany", f"more than {MAX_OFFER} files and directories: offer them in parts")
                entries.append(
                    Entry(at, found.kind, found.size, found.mtime_ns, found.mode, found.tag, found.mtime_rest)
                )
            tops[name] = top
        return cls(tops, sorted(entries, key=lambda entry: entry.path), skipped)

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self._files)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def size_of(self, path: str) -> int:
        """Return the bytes of a file; 0 if ``path`` is not a file of the offer."""
        entry = self._files.get(path)
        return 0 if entry is None else entry.size

    def open(self, path: str) -> SourceFile:
        """Open a file in the version that was scanned. Blocks.

        Raises:
            FileError: ``Changed``: it has another version now; ``NotFound``: it was not offered, or is gone;
                ``NotAFile``, ``NotADirectory``, ``Unreadable``.
        """
        entry = self._files.get(path)
        if entry is None:
            raise FileError("NotFound", "it was not offered", path)
        name, *below = parts_of(path)
        top = self._tops[name]
        return SourceFile(top.tree, (*top.parts, *below), entry.tag, self._checkpoints)


def _top(path: Path) -> tuple[str, _Root]:
    """Return the name and place of a path that the user typed. Links in it are followed."""
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise FileError("NotFound", f"{error.strerror}", str(path)) from error
    except RuntimeError as error:
        raise FileError("NotFound", "it is a link to itself", str(path)) from error
    name = checked_name(path.name if path.name not in ("", "..") else real.name)
    return name, _Root(SafeTree(real.parent), (real.name,) if real.name else ())
