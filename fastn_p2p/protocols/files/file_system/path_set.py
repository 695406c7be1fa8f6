"""Set of the paths of one transfer: a million of them in some 32 MiB."""

from __future__ import annotations

from array import array
from typing import Final

from ..._shared.path_names import collision_key
from ..errors import FileError

_SMALLEST: Final = 1024
_MASK: Final = (1 << 64) - 1


class PathSet:
    """Set of paths. ``add`` returns whether a path is new, and raises on one that can be confused with a known one.

    An open-addressing hash table keeps two 64-bit hashes of each path and nothing else: of its spelling, and of its
    collision key, which is equal for paths that differ only by case or Unicode form.
    """

    def __init__(self) -> None:
        self._size = 0
        self._capacity = _SMALLEST
        self._keys = array("Q", bytes(8 * _SMALLEST))
        self._spellings = array("Q", bytes(8 * _SMALLEST))
        self._last_parent = ""

    def __len__(self) -> int:
        """Return the number of paths, including the directories above them."""
        return self._size

    @property
    def memory(self) -> int:
        """Bytes of the hash table."""
        return self._keys.itemsize * 2 * self._capacity

    def add(self, path: str, *, directory: bool = False) -> bool:
        """Add a path; return whether it is new. A directory is new until it was added itself, with or without content.

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
        key = hash(collision_key(path)) & _MASK or 1
        spelling = hash(path) & _MASK
        slot = key % self._capacity
        while self._keys[slot]:
            if self._keys[slot] == key:
                if self._spellings[slot] != spelling:
                    raise FileError(
                        "Collision", "another name of this transfer differs only by case or Unicode form", whole
                    )
                return False
            slot = (slot + 1) % self._capacity
        self._keys[slot], self._spellings[slot] = key, spelling
        self._size += 1
        if 2 * self._size > self._capacity:
            self._grow()
        return True

    def _grow(self) -> None:
        old = zip(self._keys, self._spellings, strict=True)
        self._capacity *= 2
        self._keys = array("Q", bytes(8 * self._capacity))
        self._spellings = array("Q", bytes(8 * self._capacity))
        for key, spelling in filter(lambda each: each[0], old):
            slot = key % self._capacity
            while self._keys[slot]:
                slot = (slot + 1) % self._capacity
            self._keys[slot], self._spellings[slot] = key, spelling
