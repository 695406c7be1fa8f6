"""A file that is being read for the other side, hashed on the way, and watched for changes."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from ..digest import Digest
from ..errors import FileError, read_error
from ..framing import FRAME, HEAD
from ..messages import FileHeader
from .checkpoints import Checkpoints, Version
from .safe_tree import Parts, SafeTree, time_of, version_tag

STEP: Final = 8 * 1024 * 1024
"""Bytes that one step hashes: some milliseconds, unless the disk is slow."""

_SMALLEST: Final = 64 * 1024
"""Bytes of a block that is worth sending before the disk has more."""


class SourceFile:
    """One version of a file, from its opening on. All of it blocks, except ``read_now``.

    Args:
        tag: the version that is meant; empty for any.
        checkpoints: where the states of its hash are kept beyond this object.

    Attributes:
        version: what the file was when it was opened.

    Raises:
        FileError: it is not there, is no file, cannot be read, or is another version (``Changed``).
    """

    def __init__(self, tree: SafeTree, parts: Parts, tag: str = "", checkpoints: Checkpoints | None = None) -> None:
        self._path = "/".join(parts)
        self._closing = threading.Lock()
        self._descriptor, self._status = tree.open_file(parts)
        self._tag = version_tag(self._status)
        self.version = Version.of(self._status)
        self._checkpoints = checkpoints if self.version.is_settled else None
        self._offset = 0
        self._hasher = Digest()
        self._kept_at = 0
        """Offset of the last state that was kept."""
        self._buffers: list[bytearray] = []
        """Free, or on their way."""
        if tag and tag != self._tag:
            self.close()
            raise FileError("Changed", "it has changed since it was offered", self._path)
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._status.st_size

    def advance(self, offset: int) -> bool:
        """Hash the next ``STEP`` bytes on the way to ``offset``, from the nearest checkpoint on.

        Returns:
            Whether everything before ``offset`` is hashed, or ``offset`` is behind the end of the file.

        Raises:
            FileError: ``Unreadable``, ``Changed``.
        """
        if offset > self.size:
            return True
        if not self._offset and self._checkpoints is not None:
            self._offset, self._hasher = self._checkpoints.nearest(self.version, offset)
            self._kept_at = self._offset
        end = min(offset, self._offset + STEP)
        while self._offset < end:
            self._next(end - self._offset)
        is_there = self._offset >= offset
        if is_there or self._offset - self._kept_at >= self.version.spacing:
            self._keep()
        return is_there

    def open_at(self, offset: int, digest: bytes) -> FileHeader:
        """Go to where reading is to begin: ``offset`` when the bytes before have that digest, else 0.

        It takes long unless ``advance`` has come to ``offset`` before.

        Raises:
            FileError: ``Unreadable``, ``Changed``.
        """
        while not self.advance(offset):
            pass
        if self._offset != offset or (offset and self._hasher.digest() != digest):
            self._keep()
            self._hasher, self._offset = Digest(), 0
        mtime_ns, rest = time_of(self._status)
        return FileHeader(self.size, mtime_ns, self._status.st_mode & 0o777, self._tag, self._offset, rest)

    def read(self) -> memoryview:
        """The next block, after ``HEAD`` free bytes; only those once all of it was read, and is still what it was.

        A block stays as it is for as long as anybody has a view of it.

        Raises:
            FileError: ``Unreadable``, ``Changed``.
        """
        if self._offset < self.size:
            return self._next(self.size - self._offset)
        with self._closing:
            if version_tag(os.fstat(self._descriptor)) != self._tag:
                raise FileError("Changed", "it changed while it was read", self._path)
        return memoryview(bytearray(HEAD))

    def read_now(self) -> memoryview | None:
        """As ``read``, from what the kernel has in memory; None when the disk would have to be waited for."""
        left = self.size - self._offset
        if not left:
            return self.read()
        try:
            return self._next(left, os.RWF_NOWAIT, min(left, _SMALLEST))
        except BlockingIOError:
            return None

    def digest(self) -> bytes:
        """Of everything up to here."""
        return self._hasher.digest()

    def close(self) -> None:
        """Keep how far the hash has come, and close the file once no thread reads it any more."""
        with self._closing:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
                self._keep()

    def _keep(self) -> None:
        if self._checkpoints is not None and self._offset > self._kept_at:
            self._checkpoints.keep(self.version, self._offset, self._hasher)
            self._kept_at = self._offset

    def _next(self, most: int, flags: int = 0, least: int = 1) -> memoryview:
        """Raises BlockingIOError when ``flags`` say so and there is less than ``least``."""
        buffer = self._free_buffer()
        view = memoryview(buffer)[: HEAD + min(most, len(buffer) - HEAD)]
        with self._closing:
            try:
                size = os.preadv(self._descriptor, [view[HEAD:]], self._offset, flags)
            except OSError as error:
                if flags:  # also where the file system cannot do that
                    raise BlockingIOError from error
                raise read_error(error, self._path) from error
            if flags and size < least:
                raise BlockingIOError
            if not size:
                raise FileError("Changed", "it became shorter while it was read", self._path)
            self._hasher.update(view[HEAD : HEAD + size])
            self._offset += size
        return view[: HEAD + size]

    def _free_buffer(self) -> bytearray:
        """One that nobody looks at any more. No more are made than a session's window holds blocks."""
        for buffer in self._buffers:
            if _is_free(buffer):
                return buffer
        self._buffers.append(bytearray(min(FRAME, HEAD + self.size)))
        return self._buffers[-1]


def _is_free(buffer: bytearray) -> bool:
    """Python refuses to change the size of what somebody has a view of."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True
