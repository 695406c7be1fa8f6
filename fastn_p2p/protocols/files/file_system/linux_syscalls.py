"""Two Linux system calls that the standard library does not offer: renameat2 and sync_file_range."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Final

_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS)


def rename_noreplace(old: str, new: str, directory: int) -> None:
    """Rename a file within an open directory without replacing another one.

    Raises:
        FileExistsError: the new name is taken.
        OSError: the file could not be renamed.
    """
    done = _function("renameat2")(directory, os.fsencode(old), directory, os.fsencode(new), _RENAME_NOREPLACE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), new)
    # Network file systems do not support renameat2; a hard link does not replace a file either.
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.unlink(old, dir_fd=directory)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Tell the kernel to begin writing a part of the file to disk, so that a later fsync is short.

    This is a hint: a failure is ignored.
    """
    _function("sync_file_range")(descriptor, ctypes.c_longlong(offset), ctypes.c_longlong(size), _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _function(name: str) -> Callable[..., int]:
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return found or _missing


def _missing(*_arguments: object) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1
