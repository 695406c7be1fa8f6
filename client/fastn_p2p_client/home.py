"""The daemon's home directory: what lies where.

``Home`` only knows paths; it creates nothing. Everything below it belongs to one user (0700).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .limits import MAX_NAME, UNIX_PATH_MAX

__all__ = ["Home"]

_LONGEST_SOCKET = "run/identity-" + "n" * MAX_NAME + ".sock"
_SHORTEST_MAILBOX = "run/" + "h" * 16 + ".sock"
"""Under a hash, where the name itself would be too long."""


def runtime_directory() -> Path:
    """Where this user's sockets and shared runtime files may lie when not in a home: ``$XDG_RUNTIME_DIR``, else a
    directory of the user's own in ``/tmp``. Not created here; whoever creates it checks owner and mode."""
    configured = os.environ.get("XDG_RUNTIME_DIR")
    return Path(configured) / "fastn-p2p" if configured else _temporary()


def _temporary() -> Path:
    return Path(f"/tmp/fastn-p2p-{os.getuid()}")  # noqa: S108


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under one ``$FASTN_HOME``."""

    path: Path

    @classmethod
    def find(cls, explicit: str | os.PathLike[str] | None = None) -> Home:
        """``explicit``, else ``$FASTN_HOME``, else ``~/.fastn``; absolute."""
        chosen = explicit or os.environ.get("FASTN_HOME") or Path.home() / ".fastn"
        return cls(Path(os.path.abspath(Path(chosen).expanduser())))  # noqa: PTH100  (links stay as they are)

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
    def tree(self) -> Path:
        """The supervisor's own account of its processes (JSON), readable when nothing answers."""
        return self.path / "run" / "tree.json"

    @property
    def sockets_note(self) -> Path:
        """Exists when the sockets lie elsewhere; its one line is their directory."""
        return self.path / "sockets"

    @property
    def sockets(self) -> Path:
        """The directory that holds ``control.sock`` and ``run/``: the home, unless that path is too long.

        Then the daemon chooses one in its runtime directory and leaves a note, for programs that have another."""
        if len(os.fsencode(self.path / _LONGEST_SOCKET)) <= UNIX_PATH_MAX:
            return self.path
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=6).hexdigest()
        try:
            return Path(self.sockets_note.read_text().rstrip("\n"))
        except OSError:
            chosen = runtime_directory() / digest
        return chosen if len(os.fsencode(chosen / _SHORTEST_MAILBOX)) <= UNIX_PATH_MAX else _temporary() / digest

    @property
    def control_socket(self) -> Path:
        return self.sockets / "control.sock"

    def mailbox(self, actor: str) -> Path:
        """The socket of one actor: ``vault``, ``network``, or ``identity-<name>``; a hash where that is too long."""
        path = self.sockets / "run" / f"{actor}.sock"
        if len(os.fsencode(path)) > UNIX_PATH_MAX:
            path = path.with_name(f"{hashlib.blake2b(actor.encode(), digest_size=8).hexdigest()}.sock")
        return path

    def daemon_pid(self) -> int | None:
        """The process id of the daemon that runs for this home, or None when none does.

        The lock file alone says nothing (it outlives its daemon); the kernel says whether it is locked.
        """
        try:
            status = self.lock.stat()
            pid = int(self.lock.read_text().split()[0])
            locks = Path("/proc/locks").read_text()
        except (OSError, ValueError, IndexError):
            return None
        return pid if _is_locked(locks, status, pid) else None


def _is_locked(locks: str, status: os.stat_result, pid: int) -> bool:
    """Whether ``/proc/locks`` has a lock on that file: see proc_locks(5).

    Inode numbers are only unique per device, and some file systems show another device there than in ``status``; in
    another process namespace than the daemon's, the pid is another one. One of the two agrees.
    """
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) < 8:
            continue
        owner, (locked_device, _, inode) = fields[-4], fields[-3].rpartition(":")
        if inode == str(status.st_ino) and (locked_device == device or owner == str(pid)):
            return True
    return False
