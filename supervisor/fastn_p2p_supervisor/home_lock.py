"""Directories and lock of the daemon's home: created, checked and locked before anything else happens."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime.separate_users import SeparateUsers
from fastn_p2p_actors.storage.atomic_files import remove_file
from fastn_p2p_client.errors import DaemonAlreadyRunning, HomeUnusable
from fastn_p2p_client.home import Home, lock_exclusively, temporary_directory
from fastn_p2p_client.private_paths import check_own_directory, check_parents, unusable_reason

from .home_format import check_format, migrate

PRIVATE: Final = 0o700

log = logging.getLogger("supervisor")


class HomeLock:
    """Lock on the home, held from ``acquire`` to ``release``.

    Attributes:
        descriptor: that of the lock file.
    """

    def __init__(self, home: Home, lock: int) -> None:
        self.home = home
        self.descriptor = lock

    @classmethod
    def acquire(cls, home: Home, users: SeparateUsers | None = None) -> HomeLock:
        """Take the lock, create missing directories, bring the home to the format of this version, and remove the
        sockets of an earlier daemon.

        The kernel releases the lock when the process ends in any way.

        Args:
            home: the home.
            users: users of the daemon's processes, to whom the home is given; None if all have that of this process.

        Raises:
            DaemonAlreadyRunning: another daemon holds the lock.
            HomeUnusable: another user owns the home, others may write to it or to a directory above it, it has the
                format of a newer version, or it cannot be written.
            StorageFailed: it cannot be brought to the format of this version.
        """
        at = home.path
        with ExitStack() as failed:
            try:
                if users is None:
                    _own_directory(home.path)
                else:
                    _acquire_directory(home)
                at = home.lock
                lock = _lock(home)
                failed.callback(os.close, lock)
                check_format(home)
                directories = (home.path / "run", home.logs, home.identities, home.peers, home.vault)
                if users is None:
                    if home.users_file.exists():
                        from .home_owners import join  # hardly a daemon needs it, and it takes 0.3 MB

                        join(home)
                    migrate(home)
                    for at in directories:
                        _own_directory(at)
                        at.chmod(PRIVATE)
                else:
                    if migrate(home):
                        remove_file(home.users_file)  # so that new files, too, get their users
                    for at in directories:
                        at.mkdir(mode=PRIVATE, exist_ok=True)
                    from .home_owners import separate

                    separate(home, users)
                at = home.sockets
                _prepare_socket_directory(home)
            except OSError as error:
                raise HomeUnusable(path=str(at), reason=unusable_reason(error, at)) from error
            failed.pop_all()
        return cls(home, lock)

    def release(self) -> None:
        """Remove the remaining sockets and release the lock.

        The lock file stays. Removing it would let two daemons hold locks on two files.
        """
        with suppress(OSError):
            _remove_sockets(self.home)
            if self.home.sockets != self.home.path:
                (self.home.sockets / "run").rmdir()
                self.home.sockets.rmdir()
                if self.home.sockets.parent.name.startswith(_spare_prefix()):
                    self.home.sockets.parent.rmdir()
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def _lock(home: Home) -> int:
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        lock_exclusively(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise DaemonAlreadyRunning(home=str(home.path), pid=int(text) if text.isdecimal() else 0) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _own_directory(path: Path) -> None:
    """Create the directory (0700) if it is missing. Reject one that others own, may write to or could replace."""
    check_parents(path)
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    check_own_directory(path)


def _acquire_directory(home: Home) -> None:
    """Create the home if it is missing. Reject one that several users may write to, or whose sockets lie elsewhere."""
    check_parents(home.path)
    home.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    check_own_directory(home.path, (home.path.stat().st_uid,))
    if home.path not in home.socket_directories():
        raise HomeUnusable(path=str(home.path), reason="its path is too long for separate users. Use a shorter one")


def _prepare_socket_directory(home: Home) -> None:
    """Create the directories of the sockets, and the file with their path if they are outside the home."""
    home.socket_directory_file.unlink(missing_ok=True)  # an earlier daemon may have used another directory
    directories = home.socket_directories()
    if home.path not in directories:
        _write_socket_directory_file(home, _first_usable(directories))
    _remove_sockets(home)


def _first_usable(directories: list[Path]) -> Path:
    """Return the first directory that can be used. If other users have taken all of them, create a new one.

    Raises:
        HomeUnusable: none can be used.
        OSError: none can be created.
    """
    for directory in directories:
        try:
            _make_private(directory)
        except (HomeUnusable, OSError) as error:
            log.warning("sockets cannot be in %s: %s", directory, error)
        else:
            return directory
    directory = Path(tempfile.mkdtemp(prefix=_spare_prefix(), dir=temporary_directory().parent)) / directories[-1].name
    _make_private(directory)
    return directory


def _make_private(sockets: Path) -> None:
    for directory in (sockets.parent, sockets, sockets / "run"):
        if directory.is_symlink():
            raise HomeUnusable(path=str(directory), reason="it is a symbolic link, in a directory that others share")
        _own_directory(directory)
        directory.chmod(PRIVATE)


def _spare_prefix() -> str:
    return f"{temporary_directory().name}-"


def _write_socket_directory_file(home: Home, directory: Path) -> None:
    file = home.socket_directory_file.with_suffix(".tmp")
    file.write_bytes(os.fsencode(directory) + b"\n")
    file.replace(home.socket_directory_file)


def _remove_sockets(home: Home) -> None:
    for stale in (home.control_socket, *(home.sockets / "run").iterdir()):
        if stale.is_socket():
            stale.unlink()


def remove_runtime_files(home: Home, name: str, in_order: bool) -> None:
    """Remove what a process may not remove itself, because of its sandbox, when it has ended.

    Args:
        home: home of the daemon.
        name: name of the process.
        in_order: whether it ended in order. After a crash the mark of the code that ran is still needed.
    """
    if name == "gateway":
        with suppress(OSError):
            home.control_socket.unlink(missing_ok=True)
    elif name.startswith("identity-"):
        with suppress(OSError):
            home.mailbox(name).unlink(missing_ok=True)
            if in_order:
                (home.runtime_files(name) / f"{name}.running").unlink(missing_ok=True)
