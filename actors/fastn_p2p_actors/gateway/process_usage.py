"""CPU time and memory of a process, from proc(5). Linux only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    memory: int
    """Bytes: the proportional set size; where only root may read that, the size that the process has reported."""
    cpu_ms: int
    """Milliseconds of processor time."""


def process_usage(pid: int, proc: Path = Path("/proc"), *, exact: bool = True, reported: int = 0) -> Usage:
    """Return the usage of a process; zeros if it is gone.

    The kernel needs up to a millisecond, or a hundredth of that if ``exact`` is False.

    Args:
        pid: the process.
        proc: where proc(5) is mounted.
        exact: False to return ``reported`` or the resident set size as memory.
        reported: bytes that the process has reported; 0 for none.
    """
    directory = proc / str(pid)
    try:
        # The name in parentheses may contain any character; utime and stime are fields 14 and 15.
        fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        cpu_ms = (int(fields[11]) + int(fields[12])) * 1000 // _TICKS
        return Usage(_memory_of(directory, exact, reported), cpu_ms)
    except (OSError, ValueError, IndexError):
        return Usage(0, 0)


def _memory_of(directory: Path, exact: bool, reported: int) -> int:
    try:
        for line in (directory / "smaps_rollup").read_text().splitlines() if exact else ():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        pass
    if reported:
        return reported
    return int((directory / "statm").read_text().split()[1]) * _PAGE
