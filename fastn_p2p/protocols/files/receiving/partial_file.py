"""File that has not arrived completely: it has a name of its own in the directory where it will be.

The partial file is the only state on disk: the next attempt hashes it, and the sender says whether its file begins with
these bytes. The hash of the written bytes is also cached in this process, as long as no other process writes to the
file. All functions block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from ..._shared.path_names import PARTIAL_PREFIX
from ..digest import Digest, short_digest
from ..errors import FileError, write_error
from ..file_system.checkpoints import Checkpoints, Version
from ..file_system.linux_syscalls import rename_noreplace, start_writeback
from ..file_system.safe_tree import set_times
from ..file_system.source_file import STEP
from ..framing import BLOCK

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_OUT: Final = 8 * 1024 * 1024
"""Bytes after which the kernel is told to begin writing them to disk."""


def partial_name(name: str, peer: str) -> str:
    """Return the name of the partial file of ``name`` from that peer."""
    return f"{PARTIAL_PREFIX}{short_digest(peer.encode(), name.encode(), digits=24)}.part"


class PartialFile:
    """Partial file, locked while it is open: no other transfer of this or another process can open it.

    Args:
        directory: a descriptor of the directory; it is duplicated.
        name: final name of the file.
        peer: ID52 of the sender.
        path: path of the file in errors.
        checkpoints: cache in which states of its hash outlive this object.

    Attributes:
        size: bytes that are hashed: all bytes of the file, once ``is_hashed``.

    Raises:
        FileError: ``Busy``, ``Unwritable``, ``DiskFull``.
    """

    def __init__(self, directory: int, name: str, peer: str, path: str, checkpoints: Checkpoints | None = None) -> None:
        self._name = name
        self._path = path
        self._closing = threading.Lock()
        self._own = partial_name(name, peer)
        self._directory = os.dup(directory)
        self._descriptor = -1
        self._checkpoints = checkpoints
        self._found = 0
        """Bytes of the file when it was opened."""
        self._hasher = Digest()
        self.size = 0
        self._written_out = 0
        self._named = False
        try:
            self._descriptor = self._open()
            self._restore_hash()
        except OSError as error:
            self.close()
            raise write_error(error, path) from error
        except BaseException:
            self.close()
            raise

    def advance(self) -> None:
        """Hash the next ``STEP`` bytes of the existing content.

        Raises:
            FileError: ``Unwritable``.
        """
        with self._writing():
            end = min(self.size + STEP, self._found)
            while self.size < end:
                block = os.read(self._descriptor, min(BLOCK, end - self.size))
                if not block:  # another process has truncated it
                    self._found = self.size
                    break
                self._hasher.update(block)
                self.size += len(block)
            self._written_out = self.size

    @property
    def is_hashed(self) -> bool:
        """True if the existing content is hashed, so that the file can be written to."""
        return self.size >= self._found

    def digest(self) -> bytes:
        """Return the digest of the first ``size`` bytes."""
        return self._hasher.digest()

    def rewind(self) -> None:
        """Delete the content, to begin anew."""
        with self._writing():
            self._found = 0
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hasher, self.size, self._written_out = Digest(), 0, 0

    def write(self, parts: Iterable[memoryview]) -> None:
        """Append the parts.

        Raises:
            FileError: ``DiskFull``, ``Unwritable``; some of the bytes may have been written.
        """
        with self._writing():
            for part in parts:
                rest = part
                while rest:
                    taken = os.write(self._descriptor, rest)
                    self._hasher.update(rest[:taken])
                    self.size += taken
                    rest = rest[taken:]
            if self.size - self._written_out >= _WRITE_OUT:
                start_writeback(self._descriptor, self._written_out, self.size - self._written_out)
                self._written_out = self.size

    def commit(self, mode: int, mtime_ns: int, *, rest: int = 0, force: bool) -> os.stat_result:
        """Sync the file, and give it its final name. It is complete under that name also after a power cut.

        Args:
            rest: nanoseconds to add to ``mtime_ns``.
            force: replace another file of that name.

        Raises:
            FileError: ``Exists``, ``DiskFull``, ``Unwritable``; the partial file is kept.
        """
        with self._writing():
            os.fchmod(self._descriptor, mode & 0o777)
            set_times(self._descriptor, mtime_ns, rest)
            os.fsync(self._descriptor)
            try:
                if force:
                    os.replace(self._own, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                else:
                    rename_noreplace(self._own, self._name, self._directory)
            except (FileExistsError, IsADirectoryError) as error:
                raise FileError("Exists", "something else has this name already", self._path) from error
            self._named = True
            os.fsync(self._directory)
            return os.fstat(self._descriptor)

    def discard(self) -> None:
        """Delete the partial file, and close it."""
        with contextlib.suppress(OSError):
            os.unlink(self._own, dir_fd=self._directory)
        self.close()

    def close(self) -> None:
        """Close the partial file, and delete it if it is empty. Waits for a thread that writes to it."""
        with self._closing:
            if self._descriptor >= 0:
                self._keep_checkpoint()
                if not self._named and os.fstat(self._descriptor).st_size == 0:
                    with contextlib.suppress(OSError):
                        os.unlink(self._own, dir_fd=self._directory)
                os.close(self._descriptor)
            if self._directory >= 0:
                os.close(self._directory)
            self._descriptor = self._directory = -1

    def _open(self) -> int:
        while True:
            descriptor = self._open_once()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.fstat(descriptor)
                if not stat.S_ISREG(mine.st_mode):
                    raise FileError("Unwritable", f"{self._own} is not a file: remove it", self._path)
                with contextlib.suppress(FileNotFoundError):  # renamed by the transfer that had the lock
                    if os.path.samestat(mine, self._status()):
                        if mine.st_nlink == 1:
                            return descriptor
                        # A crash interrupted a rename in two steps: the complete file exists under its final name too.
                        os.unlink(self._own, dir_fd=self._directory)
            except BlockingIOError:
                os.close(descriptor)
                raise FileError("Busy", "another transfer is writing it: wait until that ends", self._path) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open_once(self) -> int:
        try:
            return os.open(self._own, _FLAGS, 0o600, dir_fd=self._directory)
        except PermissionError as error:
            # A crash after fchmod, before the rename, has left it with its final mode.
            try:
                handle = os.open(self._own, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            except FileNotFoundError:
                raise error from None  # the directory is not writable
            try:
                os.chmod(f"/proc/self/fd/{handle}", 0o600)  # noqa: PTH101 - the descriptor, whatever its name is now
            finally:
                os.close(handle)
            return os.open(self._own, _FLAGS, 0o600, dir_fd=self._directory)

    def _status(self) -> os.stat_result:
        return os.stat(self._own, dir_fd=self._directory, follow_symlinks=False)

    def _restore_hash(self) -> None:
        """Restore the hash from the nearest checkpoint of this process."""
        version = Version.of(os.fstat(self._descriptor))
        self._found = version.size
        if self._checkpoints is not None:
            self.size, self._hasher = self._checkpoints.nearest(version, version.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            self._written_out = self.size

    def _keep_checkpoint(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.keep(Version.of(os.fstat(self._descriptor)), self.size, self._hasher)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._closing:
            try:
                yield
            except OSError as error:
                raise write_error(error, self._path) from error
