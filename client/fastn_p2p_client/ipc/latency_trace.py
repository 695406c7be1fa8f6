"""Where a call's time goes: stamps of the monotonic clock at each hop, when ``$FASTN_TRACE`` names a directory.

Each process writes one file there, a line for each stamp: the point's name and nanoseconds. With one call in flight
at a time the stamps of all processes, sorted, are the call's way. Costs nothing when it is off.
"""

from __future__ import annotations

import os
import time
from typing import Final

_directory: Final = os.environ.get("FASTN_TRACE", "")

TRACING: Final = bool(_directory) and os.access(_directory, os.W_OK | os.X_OK)
"""Whether stamps are wanted, and can be written. Hot paths look at this before they call ``trace_point``."""

_files: dict[int, int] = {}


def trace_point(point: str) -> None:
    """Note that the present call is at ``point`` now."""
    pid = os.getpid()
    descriptor = _files.get(pid)
    if descriptor is None:
        path = f"{_directory}/{pid}.trace"
        descriptor = _files[pid] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(descriptor, f"{point} {time.monotonic_ns()}\n".encode())
