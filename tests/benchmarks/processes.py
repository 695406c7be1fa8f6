"""Memory, CPU time and children of processes, read from the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["alive", "cpu_seconds", "descendants", "pss", "run_seconds"]

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> list[int]:
    """``root`` and every process below it."""
    below: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                below.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += below.get(pid, [])
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Return the processes that have not ended. A zombie has ended."""
    return [pid for pid in pids if (fields := _stat(pid)) and fields[0] != "Z"]


def cpu_seconds(pid: int) -> float:
    """User and system time, all threads, also those that have ended; in steps of 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def run_seconds(pid: int) -> float:
    """Time on a processor of the threads that run now, to the nanosecond where the kernel counts it."""
    try:
        threads = [*(_PROC / str(pid) / "task").iterdir()]
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except (OSError, IndexError):
        return cpu_seconds(pid)


def pss(pids: Iterable[int]) -> int:
    """Proportional set size in bytes: shared pages count in part, so that a sum over processes is honest."""
    total = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def _stat(pid: int) -> list[str]:
    """Fields of proc_pid_stat(5) from the third on: state, ppid, …; empty when there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
