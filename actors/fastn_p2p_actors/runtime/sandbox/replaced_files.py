"""Files to which a process has rights, as they were when it entered its sandbox.

The kernel keeps rights to the file that was there, not to its path. A file or directory that is made later, replaced,
or mounted over is closed to the process until it is started again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 5.0
"""Seconds between two looks at the paths. Each look wakes the process, so a hundred identities would use 3 % of a core
if they looked each second."""
SETTINGS_SECONDS: Final = 30.0
"""The same where all paths are settings of the system."""
LEAST_SECONDS: Final = 2.0
"""Seconds after the start of a process before it is restarted for a path."""
_SETTINGS: Final = Path("/etc")
"""Directory of settings, which no system runs without: it does not hang."""


class ReplacedFiles:
    """Paths, with the file that each led to when this was created."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._seen = {path: _identify(path) for path in map(Path, paths)}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def find_replaced(self) -> Path | None:
        """Return a path that leads to another file now; None if there is none. A path that leads nowhere is none."""
        for path, before in self._seen.items():
            now = _identify(path)
            if now is not None and now != before:
                return path
        return None

    async def wait(self) -> Path:
        """Return a path as soon as it leads to another file."""
        only_settings = all(each.is_relative_to(_SETTINGS) for each in self._seen)
        pause, path = LEAST_SECONDS, None
        while path is None:
            await asyncio.sleep(pause)
            if only_settings:
                path = self.find_replaced()  # a thread would cost each identity 0.3 MB
            else:
                path = await asyncio.to_thread(self.find_replaced)  # a mount that hangs must not stop this process
            pause = SETTINGS_SECONDS if only_settings else LOOK_SECONDS
        return path


def _identify(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at the path; None if there is none, or it cannot be reached."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
