"""Takeover of key files from plain to sealed, or back, with a crash allowed at every step.

First every new file is written beside its old one. Then, for each file, the old content gets a second name, the new
file takes its place, and the old content is overwritten and deleted. A crash leaves each key in its old or its new
form, or in both. ``repair`` finishes the last case, and the next unlock seals what is still plain.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import StorageFailed

from ..storage.atomic_files import error_text, sync_directory
from .key_file import overwrite_secret, write_temporary

OLD: Final = ".old"
"""Suffix of the second name of an old file: ``.alice.key.old``."""

log = logging.getLogger(__name__)


class Takeover:
    """New files that wait to take the place of old ones."""

    def __init__(self) -> None:
        self._ready: list[tuple[Path, Path]] = []

    def add(self, path: Path, header: bytes, secret: memoryview | bytes) -> None:
        """Write the new file beside ``path``. Raises StorageFailed: nothing was changed."""
        self._ready.append((write_temporary(path, header, secret), path))

    def abandon(self) -> None:
        """Delete the new files that are not in place."""
        for temporary, _ in self._ready:
            overwrite_secret(temporary)
            temporary.unlink(missing_ok=True)
        self._ready.clear()

    def apply(self) -> None:
        """Put every new file in place. On disk when this returns.

        Raises:
            StorageFailed: a file could not be changed. Earlier files are in place, later ones are as they were.
        """
        while self._ready:
            temporary, path = self._ready[0]
            try:
                _replace(temporary, path)
            except OSError as error:
                self.abandon()
                raise StorageFailed(path=str(path), reason=error_text(error)) from None
            self._ready.pop(0)


def repair(folder: Path) -> None:
    """Finish what a crash has interrupted: delete old content that has a new form.

    Raises:
        OSError: the directory cannot be read.
    """
    for old in folder.glob(f".*{OLD}"):
        path = old.with_name(old.name[1 : -len(OLD)])
        try:
            if not os.path.lexists(path):  # no step of a takeover leaves this: keep the only copy
                old.rename(path)
            elif old.samefile(path):
                old.unlink()  # the new file had not taken its place yet
            else:
                overwrite_secret(old)
                old.unlink()
            sync_directory(folder)
        except OSError as error:
            log.error("%s holds an old key and could not be deleted: %s. Delete it: shred -u %s", old, error, old)


def _replace(temporary: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}{OLD}")
    old.unlink(missing_ok=True)
    os.link(path, old)
    sync_directory(path.parent)
    temporary.replace(path)
    sync_directory(path.parent)
    overwrite_secret(old)
    old.unlink()
    sync_directory(path.parent)
