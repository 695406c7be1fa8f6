"""Processes that descend from an identity's process: count them, and kill them if there are too many."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

_MOST: Final = 100_000
"""Processes that are counted; a system rarely allows a user more."""
_MOST_STARTED: Final = 64
"""Processes whose parents are looked up: each takes 15 µs, and counting those of one identity 50 µs."""
_ROUNDS: Final = 50
"""Rounds of killing processes that were started during the round before."""


def children_of(pid: int | str) -> set[int]:
    """Return the pids of the children of all threads of a process; ``self`` is this process."""
    found: set[int] = set()
    directory = f"/proc/{pid}/task"
    with contextlib.suppress(OSError):
        for task in os.listdir(directory):  # noqa: PTH208 - paths as objects take three times as long
            with contextlib.suppress(OSError), open(f"{directory}/{task}/children", "rb", 0) as file:  # noqa: PTH123
                found.update(map(int, file.readall().split()))
    return found


def descendants_of(pid: int) -> set[int]:
    """Return the pids of children, their children, and so on.

    Processes whose parent has ended are missing: the kernel made them children of the supervisor, which kills them.
    """
    found: set[int] = set()
    left = children_of(pid)
    while left and len(found) < _MOST:
        found |= left
        left = {child for each in left for child in children_of(each)} - found
    return found


class StartedProcesses:
    """Processes and threads that were started on this machine, in the order of their pids."""

    def __init__(self) -> None:
        self._last = -1
        self._unseen: set[int] = set()
        """Pids that were given and belonged to no process yet, or no more."""

    def parents(self) -> set[int] | None:
        """Return the parents of those that were started since the call before, as far as they still run.

        A pid is given some moments before its process can be seen, so those that cannot be seen are tried once more.
        Return None if that is not known: at the first call, after many starts, and where the kernel does not say.
        """
        last, self._last = self._last, last_pid()
        if last < 0 or not last <= self._last <= last + _MOST_STARTED:
            self._unseen.clear()
            return None
        found: set[int] = set()
        given = set(range(last + 1, self._last + 1))
        for pid in given | self._unseen:
            parent = _parent_of(pid)
            if parent:
                found.add(parent)
                given.discard(pid)
        self._unseen = given
        return found


def last_pid() -> int:
    """Return the pid that the kernel gave last in this pid namespace, or one within it; -1 if it does not say.

    While it stays the same, no process was started, so no process can have a descendant more.
    """
    try:
        with open("/proc/loadavg", "rb", 0) as file:  # noqa: PTH123
            return int(file.readall().split()[4])
    except (OSError, ValueError, IndexError):
        return -1


def _parent_of(pid: int) -> int:
    """Return the pid of the parent of a process or thread; 0 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:  # noqa: PTH123 - paths as objects take three times as long
            return int(file.readall().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def end_descendants(pid: int) -> int:
    """Kill all descendants, also those started meanwhile. Return the number at the first round."""
    first = 0
    for round_number in range(_ROUNDS):
        found = descendants_of(pid)
        if round_number == 0:
            first = len(found)
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGSTOP)  # a stopped process starts no other one while the rest is killed
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
