"""A file that is being read for the other side, hashed on the way, and watched for changes. All of it blocks."""

from __future__ import annotations

import contextlib
import os
import threading

from .failures import FileError, reading_failed
from .frames import BLOCK
from .hashing import Digest
from .messages import Found
from .tree import Parts, Tree, tag_of

__all__ = ["Source"]


class Source:
    """One version of a file, from its opening on.

    Args:
        tag: the version that is meant; empty for any.

    Raises:
        FileError: it is not there, is no file, cannot be read, or is another version (``Changed``).
    """

    def __init__(self, tree: Tree, parts: Parts, tag: str = "") -> None:
        self._path = "/".join(parts)
        self._closing = threading.Lock()
        self._descriptor, self._status = tree.open_file(parts)
        self._tag = tag_of(self._status)
        self._left = self._status.st_size
        self._hasher = Digest()
        if tag and tag != self._tag:
            self.close()
            raise FileError("Changed", "it has changed since it was offered", self._path)
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def begin(self, offset: int, digest: bytes) -> Found:
        """Goes to where reading is to begin: ``offset`` when the bytes before have that digest, else 0.

        Raises:
            FileError: ``Unreadable``, ``Changed``.
        """
        begin = 0
        if 0 < offset <= self._status.st_size:
            while self._left > self._status.st_size - offset:
                self._next(min(BLOCK, offset - (self._status.st_size - self._left)))
            begin = offset
            if self._hasher.digest() != digest:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                self._hasher, self._left, begin = Digest(), self._status.st_size, 0
        mode = self._status.st_mode & 0o777
        return Found(self._status.st_size, self._status.st_mtime_ns, mode, self._tag, begin)

    def read(self) -> bytes:
        """The next block; ``b""`` once all of it was read, and is still what it was at the beginning.

        Raises:
            FileError: ``Unreadable``, ``Changed``.
        """
        if self._left:
            return self._next(min(BLOCK, self._left))
        with self._closing:
            if tag_of(os.fstat(self._descriptor)) != self._tag:
                raise FileError("Changed", "it changed while it was read", self._path)
        return b""

    def digest(self) -> bytes:
        """Of everything up to here."""
        return self._hasher.digest()

    def close(self) -> None:
        """Waits for whoever is reading at the moment."""
        with self._closing:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _next(self, size: int) -> bytes:
        with self._closing:
            try:
                block = os.read(self._descriptor, size)
            except OSError as error:
                raise reading_failed(error, self._path) from error
            if not block:
                raise FileError("Changed", "it became shorter while it was read", self._path)
            self._hasher.update(block)
        self._left -= len(block)
        return block
