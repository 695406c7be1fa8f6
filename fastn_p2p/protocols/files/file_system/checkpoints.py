"""Checkpoints: states of the hash at some offsets of a file, so that no prefix of it is hashed twice.

A peer that resumes a file names an offset and the digest of the bytes before it. Computing that digest reads those
bytes. Checkpoints are kept per version of a file (device, inode, size, times of change), at regular offsets and where a
transfer or a hashing ended. The next request begins at the nearest checkpoint before its offset. They live as long as
the process: after a restart the bytes are read again, which also detects damage from a power cut.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final, NamedTuple

from ..digest import Digest

_MOST: Final = 2048
"""Checkpoints in all, of 2 KiB each; those of the least recently used version are dropped first."""
_MOST_OF_ONE: Final = 128
"""Checkpoints of one version of a file."""
_LEAST: Final = 64 * 1024 * 1024
"""Bytes between two checkpoints, at least: some 30 ms of hashing."""
_SMALL: Final = 1024 * 1024
"""Bytes below which hashing again costs less than a checkpoint."""
_TICK_NS: Final = 50_000_000
"""Nanoseconds within which two changes may leave the same times: the kernel's clock ticks 100 times a second or
more."""


class Version(NamedTuple):
    """Version of a file: equal as long as no process writes to it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Version:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def is_stable(self) -> bool:
        """True if any change from now on gives the file another version."""
        return time.time_ns() - self.ctime_ns > _TICK_NS

    @property
    def spacing(self) -> int:
        """Bytes between two checkpoints that are worth keeping."""
        return max(_LEAST, self.size // _MOST_OF_ONE)


class Checkpoints:
    """Cache of checkpoints, used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: OrderedDict[Version, dict[int, Digest]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of checkpoints."""
        return self._count

    def nearest(self, version: Version, offset: int) -> tuple[int, Digest]:
        """Return the largest offset up to the given one that has a checkpoint, or 0, and a copy of its state."""
        with self._lock:
            states = self._versions.get(version)
            if states is None:
                return 0, Digest()
            self._versions.move_to_end(version)
            best = max((each for each in states if each <= offset), default=0)
            return best, states[best].copy() if best else Digest()

    def keep(self, version: Version, offset: int, state: Digest) -> None:
        """Keep a copy of the state after ``offset`` bytes."""
        if offset < _SMALL:
            return
        with self._lock:
            states = self._versions.setdefault(version, {})
            self._versions.move_to_end(version)
            self._count += offset not in states
            states[offset] = state.copy()
            if len(states) > _MOST_OF_ONE:
                offsets = sorted(states)
                gaps = [after - before for before, after in zip([0, *offsets[:-1]], offsets, strict=True)]
                del states[offsets[gaps.index(min(gaps))]]
                self._count -= 1
            while self._count > _MOST:
                _, dropped = self._versions.popitem(last=False)
                self._count -= len(dropped)
