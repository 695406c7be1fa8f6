"""Files that are either written completely or not at all, and directories that go in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import StorageFailed

__all__ = [
    "delete_trash",
    "error_text",
    "make_directory",
    "remove_file",
    "remove_tree",
    "rename",
    "sync_directory",
    "write_atomically",
]

_PRIVATE: Final = 0o700
_GRAVE: Final = ".trash-"


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces ``path`` with ``data``, mode 0600; on disk when this returns.

    Raises:
        StorageFailed: nothing was changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _storage(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Makes the directory (0700) and those above it that are missing; on disk when this returns.

    Raises:
        StorageFailed: it cannot be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    with _storage(path):
        path.mkdir(mode=_PRIVATE, exist_ok=True)
        sync_directory(path.parent)


def rename(path: Path, target: Path) -> None:
    """Gives the file another name in the same directory; on disk when this returns.

    Raises:
        StorageFailed: nothing was changed.
    """
    with _storage(target):
        path.replace(target)
        sync_directory(target.parent)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; it is gone after a power cut too.

    Raises:
        StorageFailed: nothing was changed.
    """
    with _storage(path):
        path.unlink(missing_ok=True)
        sync_directory(path.parent)


def remove_tree(path: Path, trash: Path) -> None:
    """Removes a directory: it is gone, whole, when this returns, and then its content is deleted.

    Deleting may be cut short by the end of the process; ``delete_trash`` finishes it. ``trash`` is an existing
    directory on the same file system. Needs no space on the disk.

    Raises:
        StorageFailed: nothing was changed.
    """
    grave = trash / f"{_GRAVE}{secrets.token_hex(8)}"
    with _storage(path):
        path.rename(grave)
        sync_directory(path.parent)
    shutil.rmtree(grave, ignore_errors=True)


def delete_trash(trash: Path) -> None:
    """Deletes what an interrupted ``remove_tree`` has left."""
    for grave in trash.glob(f"{_GRAVE}*"):
        shutil.rmtree(grave, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Makes names that were added to or removed from the directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def error_text(error: OSError) -> str:
    """What ``StorageFailed`` says about it."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(path=str(path), reason=error_text(error)) from error
