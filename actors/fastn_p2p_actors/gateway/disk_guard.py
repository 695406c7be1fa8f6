"""Guard of the disk: an identity whose protocols fill it is taken offline.

Problem: code may write as much as it likes below its workspace, and without root no limit of the kernel bounds that. On
a full disk the vault, the audit log and all other identities fail. Idea: ask for the free space, which costs one system
call. When it is low, measure the directories of the identities, and compare them with an earlier measurement. The one
that has grown by at least half of what is gone is taken offline, and its owner is told. Cost: a walk through these
directories whenever the free space has changed by half of the reserve, and by less when it is low. Identities that have
slept since the last measurement have written nothing, and are not walked. Not covered: identities with the daemon's own
protocols alone, which refuse what does not fit, and code that fills the reserve between two looks. It is taken offline
on a full disk, and its files stay until the owner deletes them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

LOOK_SECONDS: Final = 2.0
"""Seconds between two looks at the free space."""
MOST_RESERVE: Final = 512 * 1024 * 1024
"""Bytes below which the free space is low."""
RESERVE_SHARE: Final = 0.05
"""Share of a small disk below which its free space is low, in place of ``MOST_RESERVE``. Also the share of the files
that any disk can have."""
LEAST_GROWTH: Final = 32 * 1024 * 1024
"""Bytes by which an identity must have grown, on all but small disks."""
_STEP_FILES: Final = 1024
"""Files by which low free space must fall before identities are measured again."""
_FILE_BYTES: Final = 4096
"""Bytes for which each file counts beside its content: a disk can run out of files, too."""
_TIME_STEP: Final = 50_000_000
"""Nanoseconds by which a time stamp of a file may be older than its change: the kernel's clock for them has steps."""


class DiskSpace(NamedTuple):
    """Free space of a disk, as statvfs(3) has it."""

    free: int
    """Bytes for an ordinary user."""
    size: int
    free_files: int
    files: int
    """Files that the disk can have; 0 if it does not say."""

    @property
    def reserve(self) -> int:
        return min(MOST_RESERVE, int(self.size * RESERVE_SHARE))

    @property
    def is_low(self) -> bool:
        return self.free < self.reserve or self.free_files < self.files * RESERVE_SHARE


def space_of(path: Path) -> DiskSpace:
    """Return the space of the disk on which the path is. Raises OSError."""
    found = os.statvfs(path)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)


class DiskGuard:
    """Watches the disk with the directories of all identities.

    Args:
        identities: directory that has one of each identity.
        asleep: directory that has a file of each identity that is asleep, written when it fell asleep.
        bring_offline: called with the name of an identity and the bytes by which it has grown.
        runs_foreign_code: return whether an identity's process runs protocols that do not come with the daemon.
        space: return the space of the disk of a path.
    """

    def __init__(
        self,
        identities: Path,
        asleep: Path,
        bring_offline: Callable[[str, int], Awaitable[None]],
        runs_foreign_code: Callable[[str], bool],
        space: Callable[[Path], DiskSpace] = space_of,
    ) -> None:
        self._identities = identities
        self._asleep = asleep
        self._bring_offline = bring_offline
        self._runs_foreign_code = runs_foreign_code
        self._space = space
        self._before: dict[str, int] = {}
        """Bytes of each identity at the last measurement."""
        self._measured_at = 0
        """Time when that began, in nanoseconds of ``time.time_ns``."""
        self._free_before = -1
        """Free bytes of the disk then; -1 if nothing was measured yet."""
        self._low: DiskSpace | None = None
        """Low free space at the last measurement; None if it is not low."""

    async def watch(self) -> None:
        """Look at the disk, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Measure again if much has changed, and take an identity offline if it has filled the disk."""
        try:
            space = self._space(self._identities)
        except OSError:
            return
        if not space.is_low:
            self._low = None
        changed = abs(self._free_before - space.free) > space.reserve // 2
        if self._free_before < 0 or (changed and not space.is_low):
            began = time.time_ns()
            self._before, self._free_before = await asyncio.to_thread(self._measure), space.free
            self._measured_at = began
        elif space.is_low and self._is_lower(space):
            sizes = await asyncio.to_thread(self._measure)
            grown = {name: size - self._before.get(name, 0) for name, size in sizes.items()}
            name = max(grown, key=lambda each: grown[each], default="")
            gone = self._free_before - space.free
            if name and grown[name] >= max(self._least(space), gone // 2, 1):
                self._before[name] = sizes[name]
                await self._bring_offline(name, grown[name])

    def _is_lower(self, space: DiskSpace) -> bool:
        """Return whether the low free space is lower than at the last measurement, or low for the first time."""
        before = self._low
        if before is not None:
            bytes_gone, files_gone = before.free - space.free, before.free_files - space.free_files
            if bytes_gone < self._least(space) // 4 and files_gone < _STEP_FILES:
                return False
        self._low = space
        return True

    @staticmethod
    def _least(space: DiskSpace) -> int:
        """Return the bytes by which an identity must have grown."""
        return min(LEAST_GROWTH, space.reserve)

    def _measure(self) -> dict[str, int]:
        try:
            names = [each.name for each in os.scandir(self._identities) if each.is_dir(follow_symlinks=False)]
        except OSError:
            return {}
        sizes: dict[str, int] = {}
        for name in names:
            if self._has_slept(name):
                if name in self._before:
                    sizes[name] = self._before[name]
            elif self._runs_foreign_code(name):
                sizes[name] = _bytes_below(self._identities / name)
        return sizes

    def _has_slept(self, name: str) -> bool:
        """Return whether an identity has been asleep since the last measurement."""
        try:
            return (self._asleep / f"{name}.json").stat().st_mtime_ns < self._measured_at - _TIME_STEP
        except OSError:
            return False


def _bytes_below(directory: Path) -> int:
    """Return the bytes of all files below a directory. It follows no links."""
    size = 0
    left = [os.fspath(directory)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    size += _FILE_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue  # it was deleted meanwhile
    return size
