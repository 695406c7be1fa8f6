"""Files and directories that an identity's process was granted, as they were when it entered its sandbox.

The kernel keeps rights to the file that was there, not to its path. A directory that is made later, replaced, or
mounted over is closed to the process until it is started again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fastn_p2p_client.permissions import Permissions

from ..runtime.sandbox.granted_paths import without_replaceable

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at the paths."""
LEAST_SECONDS: Final = 2.0
"""Seconds after the start of a process before it is restarted for a path."""


class GrantedFiles:
    """Paths of the permissions, with the file that each led to when this was created.

    Args:
        lines: lines of ``Permissions``.
        own: directory of the identity.
    """

    def __init__(self, lines: Iterable[str], own: Path) -> None:
        permissions = without_replaceable(Permissions.of(lines), (own,))
        paths = (*permissions.read, *permissions.write, *permissions.programs)
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


def _identify(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at the path; None if there is none, or it cannot be reached."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
