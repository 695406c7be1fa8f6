"""Processes that descend from an identity's process: counted, and ended when there are too many."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

__all__ = ["children_of", "descendants_of", "end_descendants"]

_MOST: Final = 100_000
"""Processes that are looked at; a system seldom lets a user have more."""
_ROUNDS: Final = 50
"""Looks at what was started while the others were ended."""


def children_of(pid: int | str) -> set[int]:
    """The children of all threads of a process, by process id; ``self`` is this one."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found.update(map(int, (task / "children").read_text().split()))
    return found


def descendants_of(pid: int) -> set[int]:
    """Children, their children, and so on. What was started by a process that has ended meanwhile is not among them:
    the kernel has made it a child of the supervisor, which ends it."""
    found: set[int] = set()
    left = children_of(pid)
    while left and len(found) < _MOST:
        found |= left
        left = {child for each in left for child in children_of(each)} - found
    return found


def end_descendants(pid: int) -> int:
    """End them all, also those that are started meanwhile; returns how many there were at the first look."""
    first = 0
    for round_number in range(_ROUNDS):
        found = descendants_of(pid)
        if round_number == 0:
            first = len(found)
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGSTOP)  # so that none starts another while the rest is ended
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        if not {each for each in found if not _is_ended(each)}:
            break
    return first


def _is_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True
