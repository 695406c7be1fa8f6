"""What is going to be offered: local files and directories, and where they are."""

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
    """Made by ``scan``.

    Attributes:
        entries: in order of paths.
        skipped: what is below the directories and cannot be transferred.
    """

    def __init__(self, tops: dict[str, _Root], entries: list[Entry], skipped: list[Skipped]) -> None:
        self._tops = tops
        self._checkpoints = Checkpoints()
        self.entries = entries
        self.skipped = skipped
        self._files = {entry.path: entry for entry in entries if entry.kind == "file"}

    @classmethod
    def scan(cls, paths: Sequence[Path]) -> OfferManifest:
        """Looks through files and directories, of which each is offered under its last part. Blocks.

        Raises:
            FileError: one of them is not there, cannot be read, is no file and no directory, or has an unsafe name;
                ``Collision``: two of the names are too much alike; ``TooMany``: more than ``MAX_OFFER`` entries.
        """
        tops: dict[str, _Root] = {}
        entries: list[Entry] = []
        skipped: list[Skipped] = []
        sightings = PathSet()
        for path in paths:
            name, top = _top(path)
            for found in walk(*top):
                if isinstance(found, Skipped):
                    skipped.append(Skipped(join_path(name, found.path), found.reason))
                    continue
                at = join_path(name, found.path)
                try:
                    parts_of(at)
                    new = sightings.add(at, directory=found.kind == "directory")
                except FileError as error:
                    if not found.path:
                        raise
                    skipped.append(Skipped(at, error.message))  # the others of its directory are offered
                    continue
                if not new:
                    raise FileError("Collision", "two of the files would have the same name there", at)
                if len(entries) >= MAX_OFFER:
                    raise FileError("TooMany", f"more than {MAX_OFFER} files and directories; offer them in parts")
                entries.append(
                    Entry(at, found.kind, found.size, found.mtime_ns, found.mode, found.tag, found.mtime_rest)
                )
            tops[name] = top
        return cls(tops, sorted(entries, key=lambda entry: entry.path), skipped)

    @property
    def files(self) -> int:
        return len(self._files)

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def size_of(self, path: str) -> int:
        """Bytes of one of the files; 0 for what is none."""
        entry = self._files.get(path)
        return 0 if entry is None else entry.size

    def open(self, path: str) -> SourceFile:
        """A file of it, as it was when it was scanned. Blocks.

        Raises:
            FileError: ``Changed``: it is another one now; ``NotFound``: it was not offered; and as ``SourceFile``.
        """
        entry = self._files.get(path)
        if entry is None:
            raise FileError("NotFound", "it was not offered", path)
        name, *below = parts_of(path)
        top = self._tops[name]
        return SourceFile(top.tree, (*top.parts, *below), entry.tag, self._checkpoints)


def _top(path: Path) -> tuple[str, _Root]:
    """What a path that was typed is called, and where it is: links that are typed are followed."""
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise FileError("NotFound", f"{error.strerror}", str(path)) from error
    except RuntimeError as error:
        raise FileError("NotFound", "it is a link to itself", str(path)) from error
    name = checked_name(path.name if path.name not in ("", "..") else real.name)
    return name, _Root(SafeTree(real.parent), (real.name,) if real.name else ())
