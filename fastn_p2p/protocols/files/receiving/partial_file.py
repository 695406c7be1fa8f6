"""A file that has not arrived completely: it lies under a name of its own next to where it will be.

What is on disk is all there is to know about it: the next attempt hashes what is there, and the other side says whether
its file begins so. Only this process remembers the hash of what it has written, while nobody else writes to the file.
All of this blocks.
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
"""Bytes after which the kernel is told to begin to write them to disk."""


def partial_name(name: str, peer: str) -> str:
    """What a file is called until all of it has come from that peer."""
    return f"{PARTIAL_PREFIX}{short_digest(peer.encode(), name.encode(), digits=24)}.part"


class PartialFile:
    """What has arrived of one file. While it is open nobody else can open it, in this process or any other.

    Args:
        directory: a descriptor of the directory; it is duplicated.
        name: what the file will be called.
        peer: who sends it, an ID52.
        path: what it is called in errors.
        checkpoints: where the state of its hash is kept beyond this object.

    Attributes:
        size: bytes that are there, as far as ``advance`` has come.

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
        """Bytes that were there at first."""
        self._hasher = Digest()
        self.size = 0
        self._written_out = 0
        self._named = False
        try:
            self._descriptor = self._open()
            self._recall()
        except OSError as error:
            self.close()
            raise write_error(error, path) from error
        except BaseException:
            self.close()
            raise

    def advance(self) -> None:
        """Hash the next ``STEP`` bytes of what is there.

        Raises:
            FileError: ``Unwritable``.
        """
        with self._writing():
            end = min(self.size + STEP, self._found)
            while self.size < end:
                block = os.read(self._descriptor, min(BLOCK, end - self.size))
                if not block:  # somebody has cut it short
                    self._found = self.size
                    break
                self._hasher.update(block)
                self.size += len(block)
            self._written_out = self.size

    @property
    def is_hashed(self) -> bool:
        """Return whether everything that was there is hashed; then it can be written to."""
        return self.size >= self._found

    def digest(self) -> bytes:
        """Of the bytes that are there."""
        return self._hasher.digest()

    def rewind(self) -> None:
        """Forgets what is there."""
        with self._writing():
            self._found = 0
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hasher, self.size, self._written_out = Digest(), 0, 0

    def write(self, parts: Iterable[memoryview]) -> None:
        """Adds the parts to what is there.

        Raises:
            FileError: ``DiskFull``, ``Unwritable``; a part of it may be there.
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
        """Give it its name, and return what it is then: it is there, whole, also after a power cut.

        Args:
            rest: nanoseconds to be added to ``mtime_ns``.
            force: replace what has that name.

        Raises:
            FileError: ``Exists``, ``DiskFull``, ``Unwritable``; it is kept as it was.
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
        """Deletes what is there."""
        with contextlib.suppress(OSError):
            os.unlink(self._own, dir_fd=self._directory)
        self.close()

    def close(self) -> None:
        """What is there stays, unless it is nothing. Waits for whoever is writing at the moment."""
        with self._closing:
            if self._descriptor >= 0:
                self._remember()
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
                    raise FileError("Unwritable", f"something is in the way: {self._own}", self._path)
                with contextlib.suppress(FileNotFoundError):  # renamed by whoever had the lock
                    if os.path.samestat(mine, self._status()):
                        if mine.st_nlink == 1:
                            return descriptor
                        # A rename in two steps was cut short: this is the complete file too, and stays that.
                        os.unlink(self._own, dir_fd=self._directory)
            except BlockingIOError:
                os.close(descriptor)
                raise FileError("Busy", "another transfer is writing it at the moment", self._path) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open_once(self) -> int:
        try:
            return os.open(self._own, _FLAGS, 0o600, dir_fd=self._directory)
        except PermissionError as error:
            # It had its final mode already when it was about to get its name.
            try:
                handle = os.open(self._own, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            except FileNotFoundError:
                raise error from None  # it is the directory that cannot be written to
            try:
                os.chmod(f"/proc/self/fd/{handle}", 0o600)  # noqa: PTH101 - the descriptor, whatever its name is now
            finally:
                os.close(handle)
            return os.open(self._own, _FLAGS, 0o600, dir_fd=self._directory)

    def _status(self) -> os.stat_result:
        return os.stat(self._own, dir_fd=self._directory, follow_symlinks=False)

    def _recall(self) -> None:
        """Go on with the hash of what is there from where this process has left it."""
        version = Version.of(os.fstat(self._descriptor))
        self._found = version.size
        if self._checkpoints is not None:
            self.size, self._hasher = self._checkpoints.nearest(version, version.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            self._written_out = self.size

    def _remember(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.keep(Version.of(os.fstat(self._descriptor)), self.size, self._hasher)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._closing:
            try:
                yield
            except OSError as error:
                raise write_error(error, self._path) from error
