"""``Home``: paths in the daemon's home directory.

It computes paths and creates nothing. The home and its content belong to one user (mode 0700).
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

import msgspec

from .errors import HomeUnusable
from .limits import MAX_NAME, UNIX_PATH_MAX
from .private_paths import check_own_directory, check_safe_directory

_LONGEST_SOCKET: Final = "run/identity-" + "n" * MAX_NAME + ".sock"
_SHORTEST_MAILBOX: Final = "run/" + "h" * 16 + ".sock"
"""A mailbox under a hash, for a name that is too long."""
_DIGEST: Final = 6
"""Bytes of the home's hash in the name of its socket directory."""
_FLOCK: Final = struct.Struct("hhqqi0q")
"""``struct flock`` of fcntl(2): type, whence, start, length, pid."""
_WHOLE_FILE: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def temporary_directory() -> Path:
    """Return the user's directory in ``/tmp`` for sockets and runtime files. Check its owner before use."""
    return Path(f"/tmp/fastn-p2p-{os.getuid()}")  # noqa: S108


def runtime_directories() -> list[Path]:
    """Return the directories for sockets and runtime files outside of a home, the best first.

    ``$XDG_RUNTIME_DIR`` counts only if it is an absolute path to a directory of this user's own. After su(1), in cron
    jobs and in containers it often belongs to another user, or does not exist. Nothing is created here. The process
    that creates a directory checks owner and mode.
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
    """Return whether the path's bytes are UTF-8, as messages and settings need them."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def lock_exclusively(descriptor: int) -> None:
    """Lock the file ``Home.lock`` for as long as the descriptor is open.

    There are two locks. Daemons of earlier versions hold ``flock``. The other one can be tested without locking.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)


class Home(msgspec.Struct, frozen=True):
    """The home directory of one daemon, and the paths in it.

    Args:
        path: absolute path of the directory; ``Home.find`` returns the one of ``$FASTN_HOME``.
    """

    path: Path

    @classmethod
    def find(cls, explicit: str | os.PathLike[str] | None = None) -> Home:
        """Return the home at ``explicit``, else at ``$FASTN_HOME``, else at ``~/.fastn``, as an absolute path.

        Raises:
            HomeUnusable: the path is not UTF-8, or its ``~`` cannot be resolved.
        """
        chosen = os.fspath(explicit or os.environ.get("FASTN_HOME") or "~/.fastn")
        if chosen.startswith("~"):
            chosen = _without_tilde(chosen)
        if not _is_text(chosen):
            shown = os.fsencode(chosen).decode("utf-8", "backslashreplace")
            raise HomeUnusable(path=shown, reason="its path is not UTF-8. Use another --home or FASTN_HOME")
        return cls(Path(os.path.abspath(chosen)))  # noqa: PTH100  (symbolic links are not resolved)

    @property
    def lock(self) -> Path:
        """File that the running daemon has locked, with its process id."""
        return self.path / "lock"

    @property
    def vault(self) -> Path:
        """Directory of the identity keys."""
        return self.path / "vault"

    @property
    def vault_slots(self) -> Path:
        """File with the slots that open the vault (JSON). It exists if the keys are encrypted."""
        return self.vault / "slots.json"

    @property
    def audit_log(self) -> Path:
        """Return the audit log, which the vault writes. Old parts of it have the numbers 1 to 4 behind their names."""
        return self.vault / "audit.jsonl"

    @property
    def identities(self) -> Path:
        """Directory of identities, bindings and their workspaces."""
        return self.path / "identities"

    @property
    def asleep(self) -> Path:
        """Directory with a file of each identity that is asleep."""
        return self.runtime_files("network") / "asleep"

    @property
    def peers(self) -> Path:
        """Directory of the address book."""
        return self.path / "peers"

    @property
    def logs(self) -> Path:
        """Directory of the log files, one for each process."""
        return self.path / "logs"

    @property
    def config_file(self) -> Path:
        """File with the settings of the daemon (TOML). It need not exist."""
        return self.path / "config.toml"

    @property
    def format_file(self) -> Path:
        """File with the number of the home's format, in one line. Homes of the first versions have none."""
        return self.path / "format"

    @property
    def process_file(self) -> Path:
        """File in which the supervisor lists its processes (JSON). It can be read when no process answers."""
        return self.path / "run" / "processes.json"

    @property
    def socket_directory_file(self) -> Path:
        """File that names the directory of the sockets, in one line. It exists if that is not the home."""
        return self.path / "sockets"

    def runtime_directory(self, actor: str) -> Path | None:
        """Return the directory in ``run/`` for files of one process that has a user of its own; None if it has none.

        Args:
            actor: name of the process: ``vault``, ``gateway``, ``network`` or ``identity-<name>``.
        """
        return self.path / "run" / actor if actor == "network" or actor.startswith("identity-") else None

    def runtime_files(self, actor: str) -> Path:
        """Return the directory in which one process has its files of ``run/``: that, or one of its own in it.

        Args:
            actor: name of the process, as for ``runtime_directory``.
        """
        own = self.runtime_directory(actor)
        return own if own is not None and own.is_dir() else self.path / "run"

    @property
    def users_file(self) -> Path:
        """File with the users of the daemon's processes (JSON). It exists if they have users of their own."""
        return self.path / "users.json"

    @property
    def sockets(self) -> Path:
        """Directory of ``control.sock`` and ``run/``: the home, unless its path is too long.

        In that case the daemon chooses another one and writes it to ``socket_directory_file``, because a program may
        have another ``$XDG_RUNTIME_DIR``. Without that file it is the directory that a daemon would choose now.
        """
        try:
            return Path(os.fsdecode(self.socket_directory_file.read_bytes().rstrip(b"\n")))
        except OSError:
            return self.socket_directories()[0]

    def socket_directories(self) -> list[Path]:
        """Return the directories that are short enough for the sockets, the best first; at least one."""
        if _fits(self.path / _LONGEST_SOCKET):
            return [self.path]
        import hashlib  # imported late: it loads libcrypto, and few homes have a path of that length

        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=_DIGEST).hexdigest()
        candidates = [directory / digest for directory in runtime_directories()]
        return [each for each in candidates if _fits(each / _SHORTEST_MAILBOX)]

    def check(self) -> None:
        """Check that only this user, or root, can have created the content of the home and of the socket directory.

        Raises:
            HomeUnusable: another user could change a directory. The error names it and the remedy.
        """
        check_safe_directory(self.path)
        if self.sockets != self.path:
            check_safe_directory(self.sockets)

    @property
    def control_socket(self) -> Path:
        """Socket of the gateway, for programs."""
        return self.sockets / "control.sock"

    def mailbox(self, actor: str) -> Path:
        """Return the path of one actor's socket. A long name is hashed.

        Args:
            actor: ``vault``, ``network`` or ``identity-<name>``; ``keys`` for the socket of the vault for its owner.
        """
        path = self.sockets / "run" / f"{actor}.sock"
        if not _fits(path):
            import hashlib

            path = path.with_name(f"{hashlib.blake2b(actor.encode(), digest_size=8).hexdigest()}.sock")
        return path

    def find_control_socket(self) -> Path:
        """Return ``control_socket`` after ``check``. Raises HomeUnusable."""
        self.check()
        return self.control_socket

    def find_mailbox(self, actor: str) -> Path:
        """Return the path of one actor's socket, once it is sure that no other user could replace it.

        Args:
            actor: name of the socket, as for ``mailbox``.

        Raises:
            HomeUnusable: another user could replace it.
        """
        self.check()
        return self.mailbox(actor)

    def daemon_pid(self) -> int | None:
        """Return the process id of the daemon that runs for this home, or None if none runs.

        The lock file outlives its daemon, so the kernel is asked whether it is locked, without locking it. The result
        is 0 for a daemon that has not written its process id yet.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except PermissionError:
            return 0  # the daemon of another user, to which this one can only try to connect
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
    """Return ``path`` with a leading ``~`` or ``~user`` replaced by the home directory of that user.

    Raises:
        HomeUnusable: the user has none.
    """
    user, slash, rest = path.partition("/")
    home = os.environ.get("HOME", "") if user == "~" else ""
    if not home:
        import pwd

        try:
            account = pwd.getpwuid(os.getuid()) if user == "~" else pwd.getpwnam(user[1:])
        except KeyError:
            why = f"HOME is not set and uid {os.getuid()} has no account" if user == "~" else "there is no such user"
            raise HomeUnusable(path=path, reason=f"{why}. Set FASTN_HOME, or use --home") from None
        home = account.pw_dir
    return home.rstrip("/") + slash + rest or "/"


def _fits(path: Path) -> bool:
    """Return whether the path is short enough for a socket."""
    return len(os.fsencode(path)) <= UNIX_PATH_MAX
