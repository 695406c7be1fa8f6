"""What the kernel says about a process: memory and processor time. Linux only: proc(5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Usage", "process_usage"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    memory: int
    """Bytes: the proportional set size or, where only root may look, what the process has said of itself."""
    cpu_ms: int


def process_usage(pid: int, proc: Path = Path("/proc"), *, exact: bool = True, reported: int = 0) -> Usage:
    """Zeros for a process that is gone. Takes the kernel up to a millisecond, or a hundredth of that if it need not be
    ``exact``: the memory is then what the process has ``reported``, or its resident set size."""
    directory = proc / str(pid)
    try:
        # The name in parentheses may hold anything; utime and stime are the 14th and 15th field.
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
