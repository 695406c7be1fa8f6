"""Format of a home: its number, and the steps that bring the home of an older version forward.

Problem: a version may keep its files otherwise than the one before it, and a crash may come at any moment of the
change. Idea: ``format`` in the home has a number. Step ``n`` makes format ``n + 1`` of format ``n``, and may be
repeated: a file is copied to ``migrated/n/`` before its first change. An empty ``NAME.absent`` there stands for a file
that the step creates. The number rises when all of the step is on disk. So a start after a crash repeats the step, and
the copies are those of before. No step goes back: an older daemon rejects a newer format, and changes nothing.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fastn_p2p_actors.storage.atomic_files import make_directory, remove_file, write_atomically
from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home
from fastn_p2p_client.private_paths import unusable_reason

_LARGEST: Final = 16
"""Bytes of the longest number."""

log = logging.getLogger("supervisor")


class Migration:
    """Changes of one step to files of a home. They keep each file as it was before the step."""

    def __init__(self, home: Home, before: int) -> None:
        self.home = home.path
        self._kept = home.path / "migrated" / str(before)

    def find(self, pattern: str) -> list[Path]:
        """Return the files that match the pattern in the home, without those that a link leads to."""
        return sorted(path for path in self.home.glob(pattern) if self._is_own(path))

    def replace(self, path: Path, data: bytes) -> None:
        """Replace or create a file. Raises StorageFailed: nothing was changed."""
        self._keep(path)
        write_atomically(path, data)

    def remove(self, path: Path) -> None:
        """Remove a file. Raises StorageFailed: nothing was changed."""
        self._keep(path)
        remove_file(path)

    def _keep(self, path: Path) -> None:
        copy = self._kept / path.relative_to(self.home)
        absent = copy.with_name(f"{copy.name}.absent")
        if copy.exists() or absent.exists():  # made before a crash
            return
        make_directory(copy.parent)
        if path.exists():
            write_atomically(copy, path.read_bytes())
        else:
            write_atomically(absent, b"")

    def _is_own(self, path: Path) -> bool:
        parts = path.relative_to(self.home).parts
        directories = [self.home.joinpath(*parts[:count]) for count in range(1, len(parts))]
        return stat.S_ISREG(path.lstat().st_mode) and not any(each.is_symlink() for each in directories)


def _remove_former_runtime_files(migration: Migration) -> None:
    """Remove what nothing reads any more: the list of processes and the crashes of identities under former names."""
    for pattern in ("run/tree.json", "run/identity-*.deaths"):
        for path in migration.find(pattern):
            migration.remove(path)


STEPS: Final[Sequence[Callable[[Migration], None]]] = (_remove_former_runtime_files,)
"""Step ``n`` makes format ``n + 1`` of format ``n``. A home without a number has format 0."""

FORMAT: Final = len(STEPS)
"""Format of the homes of this version."""


def check_format(home: Home) -> None:
    """Check that this version can use the home, or bring it forward. Nothing is changed.

    Raises:
        HomeUnusable: it has a newer format, or the number is damaged. The error says what to do.
    """
    _read(home, FORMAT)


def migrate(home: Home, steps: Sequence[Callable[[Migration], None]] = STEPS) -> bool:
    """Bring the home to the newest format, and return whether a step was made. Call it while the home is locked.

    It may be repeated after a crash at any moment.

    Raises:
        HomeUnusable: as ``check_format``.
        StorageFailed: a file cannot be changed, for example because the disk is full. The next start tries again.
        OSError: a file cannot be read.
    """
    found = _read(home, len(steps))
    if found is None and not (home.identities.is_dir() or home.vault.is_dir()):
        _write(home, len(steps))
        return False
    found = found or 0
    for number in range(found, len(steps)):
        log.warning("%s is brought from format %d to %d", home.path, number, number + 1)
        steps[number](Migration(home, number))
        _write(home, number + 1)
    return found < len(steps)


def _read(home: Home, newest: int) -> int | None:
    """Return the format of the home; None if it has no number."""
    path = home.format_file
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HomeUnusable(path=str(path), reason=unusable_reason(error, path)) from error
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(_LARGEST + 1).strip() if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    if not text.isdigit() or len(text) > _LARGEST:
        raise HomeUnusable(
            path=str(path),
            reason="it is damaged. Write the number of the format into it that a backup of this home has, "
            f"or {newest} if this version has used the home before",
        )
    if int(text) > newest:
        raise HomeUnusable(
            path=str(home.path),
            reason=f"it has format {int(text)}, of a newer version of fastn-p2p; this version has format {newest}. "
            "Install the newer version again, or put back a copy of the home from before",
        )
    return int(text)


def _write(home: Home, number: int) -> None:
    write_atomically(home.format_file, b"%d\n" % number)
