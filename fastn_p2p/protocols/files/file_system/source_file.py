"""Local file that is read for the peer, hashed on the way, and checked for changes."""

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
"""Bytes of the smallest block that is sent before the disk has delivered more."""


class SourceFile:
    """Open file in the version that it had when it was opened. All methods block, except ``read_now``.

    Args:
        tag: version tag that the file must have; empty for any.
        checkpoints: cache in which states of its hash outlive this object.

    Attributes:
        version: version of the file when it was opened.

    Raises:
        FileError: ``NotFound``, ``NotAFile``, ``NotADirectory``, ``Unreadable``; ``Changed``: it has another tag.
    """

    def __init__(self, tree: SafeTree, parts: Parts, tag: str = "", checkpoints: Checkpoints | None = None) -> None:
        self._path = "/".join(parts)
        self._closing = threading.Lock()
        self._descriptor, self._status = tree.open_file(parts)
        self._tag = version_tag(self._status)
        self.version = Version.of(self._status)
        self._checkpoints = checkpoints if self.version.is_stable else None
        self._offset = 0
        self._hasher = Digest()
        self._kept_at = 0
        """Offset of the last checkpoint."""
        self._buffers: list[bytearray] = []
        """Buffers that are free or being sent."""
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
            True if everything before ``offset`` is hashed, or ``offset`` is behind the end of the file.

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
        """Set the position: ``offset`` if the bytes before it have that digest, else 0. Return the header to send.

        This hashes everything before ``offset``, unless ``advance`` has done so before.

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
        """Return the next block after ``HEAD`` free bytes; only those at the end of the file.

        The buffer of a block is not reused while a view of it exists.

        Raises:
            FileError: ``Unreadable``; ``Changed``, also at the end of the file.
        """
        if self._offset < self.size:
            return self._next(self.size - self._offset)
        with self._closing:
            if version_tag(os.fstat(self._descriptor)) != self._tag:
                raise FileError("Changed", "it changed while it was read", self._path)
        return memoryview(bytearray(HEAD))

    def read_now(self) -> memoryview | None:
        """Return the next block like ``read``, or None if it would have to wait for the disk."""
        left = self.size - self._offset
        if not left:
            return self.read()
        try:
            return self._next(left, os.RWF_NOWAIT, min(left, _SMALLEST))
        except BlockingIOError:
            return None

    def digest(self) -> bytes:
        """Return the digest of everything before the position."""
        return self._hasher.digest()

    def close(self) -> None:
        """Keep a checkpoint, and close the file once no thread reads it."""
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
        """Read and hash up to ``most`` bytes. With ``flags``, raise BlockingIOError below ``least`` cached bytes."""
        buffer = self._free_buffer()
        view = memoryview(buffer)[: HEAD + min(most, len(buffer) - HEAD)]
        with self._closing:
            try:
                size = os.preadv(self._descriptor, [view[HEAD:]], self._offset, flags)
            except OSError as error:
                if flags:  # also if the file system does not support the flag
                    raise BlockingIOError from error
                raise read_error(error, self._path) from error
            if flags and size < least:
                raise BlockingIOError
            if not size:
                raise FileError("Changed", "it was truncated while it was read", self._path)
            self._hasher.update(view[HEAD : HEAD + size])
            self._offset += size
        return view[: HEAD + size]

    def _free_buffer(self) -> bytearray:
        """Return a buffer that no view refers to. There are no more than a session's window holds blocks."""
        for buffer in self._buffers:
            if _is_free(buffer):
                return buffer
        self._buffers.append(bytearray(min(FRAME, HEAD + self.size)))
        return self._buffers[-1]


def _is_free(buffer: bytearray) -> bool:
    """Return whether no view of the buffer is left: Python refuses to resize one that has views."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True
