"""Time stamps of one call at each hop, if ``$FASTN_TRACE`` names a directory.

Each process writes one file there, with one line for each stamp: the name of the point, and nanoseconds of the
monotonic clock. With one call in flight at a time, the sorted stamps of all processes are the path of the call. Costs
nothing when it is off.
"""

from __future__ import annotations

import os
import time
from typing import Final

_directory: Final = os.environ.get("FASTN_TRACE", "")

TRACING: Final = bool(_directory) and os.access(_directory, os.W_OK | os.X_OK)
"""True if stamps are wanted and can be written. Hot paths check this before they call ``trace_point``."""

_files: dict[int, int] = {}


def trace_point(point: str) -> None:
    """Write the time stamp of ``point``."""
    pid = os.getpid()
    descriptor = _files.get(pid)
    if descriptor is None:
        path = f"{_directory}/{pid}.trace"
        descriptor = _files[pid] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(descriptor, f"{point} {time.monotonic_ns()}\n".encode())
