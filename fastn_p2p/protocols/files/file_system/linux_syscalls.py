"""Two system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Final

_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_NOT_THERE: Final = (errno.EINVAL, errno.ENOSYS)


def rename_noreplace(old: str, new: str, directory: int) -> None:
    """Gives a file of an open directory another name there, unless something has that name: then FileExistsError.

    Raises:
        OSError: it has the name that it had.
    """
    done = _function("renameat2")(directory, os.fsencode(old), directory, os.fsencode(new), _RENAME_NOREPLACE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in _NOT_THERE:
        raise OSError(code, os.strerror(code), new)
    # Network file systems cannot rename so; what they can is a second name for the file.
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.unlink(old, dir_fd=directory)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Lets the kernel begin to bring a part of the file to disk, so that a later fsync finds little to do.

    It is a hint: where it fails, nothing is lost.
    """
    _function("sync_file_range")(descriptor, ctypes.c_longlong(offset), ctypes.c_longlong(size), _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _function(name: str) -> Callable[..., int]:
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return found or _missing


def _missing(*_arguments: object) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1
