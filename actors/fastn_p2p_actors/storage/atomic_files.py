"""Atomic changes of files and directories: after a crash there is either the old or the new state."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import StorageFailed

_PRIVATE: Final = 0o700
_SHARED: Final = 0o750
_TRASH: Final = ".trash-"
"""Prefix of directories that are being deleted."""

_inherits = False
"""True if new files and directories get the group of the directory in which they are. The group may read them."""
_on_leftover: Callable[[Path], None] | None = None


def inherit_groups() -> None:
    """Give files and directories that this process makes from now on the group of their directory, which may read
    them."""
    global _inherits
    _inherits = True


def set_on_leftover(on_leftover: Callable[[Path], None] | None) -> None:
    """Have ``remove_tree`` and ``delete_trash`` call this with each directory of which this process may not delete
    all."""
    global _on_leftover
    _on_leftover = on_leftover


def trash_of(root: Path) -> list[Path]:
    """Return the directories in ``root`` that are being deleted."""
    return list(root.glob(f"{_TRASH}*"))


def write_atomically(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Replace ``path`` with ``data``, mode 0600, on disk when this returns. See ``inherit_groups``.

    Args:
        synced: False if it may be lost or damaged when the machine crashes: it is not waited for the disk.

    Raises:
        StorageFailed: it could not be written. Nothing was changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _storage(path):
        try:
            mode = 0o640 if _inherits else 0o600
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                if _inherits:
                    os.fchown(descriptor, -1, path.parent.stat().st_gid)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                if synced:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if synced:
            sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Create the directory (0700) and its missing parents, on disk when this returns.

    Raises:
        StorageFailed: it could not be created.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    with _storage(path):
        path.mkdir(mode=_SHARED if _inherits else _PRIVATE, exist_ok=True)
        if _inherits:
            os.chown(path, -1, path.parent.stat().st_gid)
        sync_directory(path.parent)


def rename(path: Path, target: Path) -> None:
    """Rename a file within its directory, on disk when this returns.

    Raises:
        StorageFailed: nothing was changed.
    """
    with _storage(target):
        path.replace(target)
        sync_directory(target.parent)


def remove_file(path: Path) -> None:
    """Delete a file if it exists, on disk when this returns.

    Raises:
        StorageFailed: nothing was changed.
    """
    with _storage(path):
        path.unlink(missing_ok=True)
        sync_directory(path.parent)


def remove_tree(path: Path, trash: Path) -> None:
    """Delete a directory. It is gone as a whole when this returns; deleting its content needs no space on the disk.

    The end of the process may interrupt the deletion; ``delete_trash`` completes it.

    Args:
        path: the directory.
        trash: an existing directory on the same file system.

    Raises:
        StorageFailed: nothing was changed.
    """
    trashed = trash / f"{_TRASH}{secrets.token_hex(8)}"
    with _storage(path):
        path.rename(trashed)
        sync_directory(path.parent)
    _delete(trashed)


def delete_trash(trash: Path) -> None:
    """Complete interrupted calls of ``remove_tree``."""
    for trashed in trash_of(trash):
        _delete(trashed)


def _delete(trashed: Path) -> None:
    shutil.rmtree(trashed, ignore_errors=True)
    if _on_leftover is not None and trashed.exists():
        _on_leftover(trashed)


def sync_directory(path: Path) -> None:
    """Make added and removed names in the directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def error_text(error: OSError) -> str:
    """Return the reason for ``StorageFailed``."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(path=str(path), reason=error_text(error)) from error
