"""The daemon's home directory: what lies where.

``Home`` only knows paths; it creates nothing. Everything below it belongs to one user (0700).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .errors import HomeUnusable
from .limits import MAX_NAME, UNIX_PATH_MAX
from .private_paths import check_own_directory

__all__ = ["Home", "lock_exclusively", "runtime_directories", "temporary_directory"]

_LONGEST_SOCKET: Final = "run/identity-" + "n" * MAX_NAME + ".sock"
_SHORTEST_MAILBOX: Final = "run/" + "h" * 16 + ".sock"
"""Under a hash, where the name itself would be too long."""
_DIGEST: Final = 6
"""Bytes of a home's hash in the name of its directory of sockets."""
_FLOCK: Final = struct.Struct("hhqqi0q")
"""``struct flock`` of fcntl(2): type, whence, start, length, pid."""
_WHOLE_FILE: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def temporary_directory() -> Path:
    """The user's own directory in ``/tmp``, for sockets and shared runtime files. Perhaps somebody else has made it."""
    return Path(f"/tmp/fastn-p2p-{os.getuid()}")  # noqa: S108


def runtime_directories() -> list[Path]:
    """Where this user's sockets and shared runtime files may lie when not in a home, the best first.

    ``$XDG_RUNTIME_DIR`` counts when it is what it should be: an absolute path to a directory of this user's own. After
    su(1), in cron jobs and in containers it often is another user's, or is not there. Nothing is created here; the
    process that creates one checks owner and mode.
    """
    configured = os.environ.get("XDG_RUNTIME_DIR", "")
    chosen = Path(configured) / "fastn-p2p"
    return [chosen, temporary_directory()] if _is_usable(configured, chosen) else [temporary_directory()]


def _is_usable(configured: str, chosen: Path) -> bool:
    if not configured.startswith("/") or not _is_text(configured):
        return False
    try:
        check_own_directory(Path(configured))
        check_own_directory(chosen)
    except HomeUnusable:
        return False
    return (
        os.access(configured, os.W_OK | os.X_OK)
        and not chosen.is_symlink()
        and (chosen.is_dir() or not chosen.exists())
    )


def _is_text(path: str) -> bool:
    """Return whether the path's bytes are UTF-8, which they must be to stand in messages and settings."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def lock_exclusively(descriptor: int) -> None:
    """Lock the file ``Home.lock`` for as long as the descriptor is open.

    ``flock`` is what daemons of earlier versions hold; the other lock can be looked at without being taken.

    Raises:
        BlockingIOError: another process has it.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under one ``$FASTN_HOME``."""

    path: Path

    @classmethod
    def find(cls, explicit: str | os.PathLike[str] | None = None) -> Home:
        """``explicit``, else ``$FASTN_HOME``, else ``~/.fastn``; absolute.

        Raises:
            HomeUnusable: the path is not UTF-8, or there is no ``~``.
        """
        chosen = os.fspath(explicit or os.environ.get("FASTN_HOME") or "~/.fastn")
        if chosen.startswith("~"):
            chosen = _without_tilde(chosen)
        if not _is_text(chosen):
            shown = os.fsencode(chosen).decode("utf-8", "backslashreplace")
            raise HomeUnusable(path=shown, reason="its path is not UTF-8; use another --home or FASTN_HOME")
        return cls(Path(os.path.abspath(chosen)))  # noqa: PTH100  (links stay as they are)

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def vault(self) -> Path:
        return self.path / "vault"

    @property
    def identities(self) -> Path:
        return self.path / "identities"

    @property
    def peers(self) -> Path:
        return self.path / "peers"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def process_file(self) -> Path:
        """The supervisor's own account of its processes (JSON), readable when nothing answers."""
        return self.path / "run" / "processes.json"

    @property
    def socket_directory_file(self) -> Path:
        """Exists when the sockets lie elsewhere; its one line is their directory."""
        return self.path / "sockets"

    @property
    def sockets(self) -> Path:
        """The directory that holds ``control.sock`` and ``run/``: the home, unless that path is too long.

        Then the daemon chooses another one and leaves a note: programs may have another ``$XDG_RUNTIME_DIR``. Without
        a note it is the directory that a daemon would choose here and now."""
        try:
            return Path(os.fsdecode(self.socket_directory_file.read_bytes().rstrip(b"\n")))
        except OSError:
            return self.socket_places()[0]

    def socket_places(self) -> list[Path]:
        """The directories that can hold the sockets, the best first; at least one."""
        if _fits(self.path / _LONGEST_SOCKET):
            return [self.path]
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=_DIGEST).hexdigest()
        places = [directory / digest for directory in runtime_directories()]
        return [place for place in places if _fits(place / _SHORTEST_MAILBOX)]

    def check(self) -> None:
        """Check that nobody but this user can have put there what is in the home, or where its sockets are.

        Raises:
            HomeUnusable: which directory others could change, and what to do.
        """
        check_own_directory(self.path)
        if self.sockets != self.path:
            check_own_directory(self.sockets)

    @property
    def control_socket(self) -> Path:
        return self.sockets / "control.sock"

    def mailbox(self, actor: str) -> Path:
        """The socket of one actor: ``vault``, ``network``, or ``identity-<name>``; a hash where that is too long."""
        path = self.sockets / "run" / f"{actor}.sock"
        if not _fits(path):
            path = path.with_name(f"{hashlib.blake2b(actor.encode(), digest_size=8).hexdigest()}.sock")
        return path

    def find_control_socket(self) -> Path:
        """``control_socket``, after ``check``."""
        self.check()
        return self.control_socket

    def find_mailbox(self, actor: str) -> Path:
        """``mailbox``, after ``check``."""
        self.check()
        return self.mailbox(actor)

    def daemon_pid(self) -> int | None:
        """The process id of the daemon that runs for this home, or None when none does.

        The lock file alone says nothing (it outlives its daemon); the kernel says whether it is locked, without the
        lock being taken. 0 stands for a daemon that has not written its process id yet.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            kind = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE))[0]
            text = os.pread(descriptor, 32, 0).split()
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if kind == fcntl.F_UNLCK:
            return None
        return int(text[0]) if text and text[0].isdigit() else 0


def _without_tilde(path: str) -> str:
    """``path`` with ``~`` and ``~user`` in front replaced by the directory that they stand for.

    Raises:
        HomeUnusable: there is none.
    """
    user, slash, rest = path.partition("/")
    home = os.environ.get("HOME", "") if user == "~" else ""
    if not home:
        import pwd

        try:
            account = pwd.getpwuid(os.getuid()) if user == "~" else pwd.getpwnam(user[1:])
        except KeyError:
            who = f"HOME is not set and uid {os.getuid()} has no account" if user == "~" else "there is no such user"
            raise HomeUnusable(path=path, reason=f"{who}; set FASTN_HOME, or use --home") from None
        home = account.pw_dir
    return home.rstrip("/") + slash + rest or "/"


def _fits(path: Path) -> bool:
    """Return whether a socket can have this path."""
    return len(os.fsencode(path)) <= UNIX_PATH_MAX
