"""Which paths of one transfer have been seen: a million of them in some 32 MiB."""

from __future__ import annotations

from array import array
from typing import Final

from ..._shared.path_names import collision_key
from ..errors import FileError

_SMALLEST: Final = 1024
_MASK: Final = (1 << 64) - 1


class PathSet:
    """Tells new paths from known ones, and from those that could be taken for a known one.

    Keeps two 64-bit hashes of each path and nothing else: of how it is spelled, and of what it could be taken for.
    """

    def __init__(self) -> None:
        self._size = 0
        self._room = _SMALLEST
        self._likeness = array("Q", bytes(8 * _SMALLEST))
        self._spelling = array("Q", bytes(8 * _SMALLEST))
        self._last_parent = ""

    def __len__(self) -> int:
        """Paths seen, with the directories above them."""
        return self._size

    @property
    def memory(self) -> int:
        """Bytes that all of it takes."""
        return self._likeness.itemsize * 2 * self._room

    def add(self, path: str, *, directory: bool = False) -> bool:
        """Whether the path is new. A directory is, until it was added itself, whatever was added below it.

        Raises:
            FileError: ``Collision``: the path, or a directory above it, differs from a known one only by case or
                Unicode normalisation.
        """
        parent = path.rpartition("/")[0]
        if parent and parent != self._last_parent:
            end = parent.find("/")
            while end >= 0:
                self._insert(parent[:end], path)
                end = parent.find("/", end + 1)
            self._insert(parent, path)
            self._last_parent = parent
        new = self._insert(path, path)
        return self._insert(f"{path}/", path) if directory else new

    def _insert(self, path: str, whole: str) -> bool:
        likeness = hash(collision_key(path)) & _MASK or 1
        spelling = hash(path) & _MASK
        slot = likeness % self._room
        while self._likeness[slot]:
            if self._likeness[slot] == likeness:
                if self._spelling[slot] != spelling:
                    raise FileError(
                        "Collision", "another name of this transfer differs only by case or spelling", whole
                    )
                return False
            slot = (slot + 1) % self._room
        self._likeness[slot], self._spelling[slot] = likeness, spelling
        self._size += 1
        if 2 * self._size > self._room:
            self._grow()
        return True

    def _grow(self) -> None:
        old = zip(self._likeness, self._spelling, strict=True)
        self._room *= 2
        self._likeness = array("Q", bytes(8 * self._room))
        self._spelling = array("Q", bytes(8 * self._room))
        for likeness, spelling in filter(lambda each: each[0], old):
            slot = likeness % self._room
            while self._likeness[slot]:
                slot = (slot + 1) % self._room
            self._likeness[slot], self._spelling[slot] = likeness, spelling
