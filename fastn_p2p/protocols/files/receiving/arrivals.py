"""Seals of received files: they tell whether a file is still on disk as it arrived."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import TypeAlias

from ..errors import FileError
from ..file_system.checkpoints import Version
from ..file_system.safe_paths import parts_of
from ..file_system.safe_tree import SafeTree

Seal: TypeAlias = tuple[int, int, int, int]
"""Inode, size, and the times of change of content and inode in nanoseconds. A program that writes to the file, replaces
it or moves another one to its path changes at least one of them. The device is left out: its number may change with a
restart."""


def seal_of(status: os.stat_result | Version) -> Seal:
    """Return the seal of a file."""
    version = status if isinstance(status, Version) else Version.of(status)
    return version.inode, version.size, version.mtime_ns, version.ctime_ns


def is_there(tree: SafeTree, path: str, arrived: Mapping[str, Seal]) -> bool:
    """Return whether the file has arrived and was not changed since. Blocks."""
    seal = arrived.get(path)
    if seal is None:
        return False
    try:
        parts = parts_of(path)
        with tree.directory(parts[:-1]) as above:
            status = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
    except (FileError, OSError):
        return False
    return stat.S_ISREG(status.st_mode) and seal_of(status) == seal
