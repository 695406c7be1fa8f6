"""A wall clock that a test sets: for all processes of a daemon, while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["ShiftedClock"]

_SITE: Final = """
import pathlib, time
real, file = time.time, pathlib.Path({path!r})

def shifted():
    try:
        return real() + float(file.read_text())
    except (OSError, ValueError):
        return real()

time.time = shifted
"""
"""Runs at the start of each of the daemon's processes: adds to the wall clock what the file says."""


class ShiftedClock:
    """Clock of the processes that have ``site`` in their ``PYTHONPATH``. It is right at first.

    Args:
        site: directory to make. Modules are there, so sandboxes leave it open.
    """

    def __init__(self, site: Path) -> None:
        site.mkdir()
        self.site = site
        self._file = site / "shift"
        self.set(0)
        (site / "sitecustomize.py").write_text(_SITE.format(path=str(self._file)))

    def set(self, seconds: float) -> None:
        """Set the clock off by so much; 0: right."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.replace(self._file)
