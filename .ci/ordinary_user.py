"""Run a command in a copy of this checkout as an ordinary user: ``ordinary_user.py COMMAND...``, by root.

The user is ``nobody``, with a home and a directory for temporary files of its own, which are deleted at the end. The
command finds in ``$PYTHON`` an interpreter that this user can run: root's own one may be closed to others.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "node_modules", ".*_cache", ".hypothesis")
USABLE = "import ctypes, ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))"


class User:
    """An ordinary user, whose files are all below ``base``."""

    def __init__(self, base: Path) -> None:
        account = pwd.getpwnam("nobody")
        self.base = base
        self.id, self.group = account.pw_uid, account.pw_gid
        private = ("HOME", "USER", "LOGNAME", "TMPDIR", "SHELL", "MAKEFLAGS", "MFLAGS")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "PYTHON", "FASTN_"))}
        self.env = {key: value for key, value in kept.items() if key not in private}
        self.env |= {"HOME": str(base / "home"), "TMPDIR": str(base), "USER": "nobody", "LOGNAME": "nobody"}

    def run(self, *command: str, **options: object) -> int:
        """Run the command as this user; its exit code."""
        done = subprocess.run(
            command, check=False, user=self.id, group=self.group, extra_groups=[], env=self.env, umask=0o22, **options
        )
        return done.returncode

    def can_use(self, python: str) -> bool:
        """Return whether the interpreter is new enough, complete, and open to this user."""
        try:
            return self.run(python, "-c", USABLE, cwd="/", stderr=subprocess.DEVNULL) == 0
        except OSError:
            return False

    def own(self) -> None:
        """Give the user everything below ``base``."""
        for directory, directories, files in os.walk(self.base):
            for name in (".", *directories, *files):
                os.chown(Path(directory, name), self.id, self.group, follow_symlinks=False)


def interpreters() -> Iterator[str]:
    """Every Python of this machine that may do, the likeliest first."""
    yield from filter(None, [os.environ.get("PYTHON"), sys.executable, getattr(sys, "_base_executable", None)])
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        for folder in (*os.get_exec_path(), "/usr/local/bin", "/usr/bin"):
            if Path(folder, name).is_file():
                yield str(Path(folder, name))


def copied_interpreter(base: Path) -> str:
    """A copy of the Python that runs this, for when that is the only one and closed to others."""
    shutil.copytree(sys.base_prefix, base / "python", symlinks=True)
    return str(base / "python" / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def main(command: list[str]) -> int:
    base = Path(tempfile.mkdtemp(prefix="ci-"))
    try:
        user = User(base)
        (base / "home").mkdir()
        shutil.copytree(CHECKOUT, base / "checkout", symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        user.own()
        python = next(filter(user.can_use, interpreters()), None)
        if python is None:
            python = copied_interpreter(base)
            user.env["LD_LIBRARY_PATH"] = str(base / "python" / "lib")  # its libpython, where that is shared
            user.own()
            if not user.can_use(python):
                sys.exit("no Python 3.11 that an ordinary user can run: set PYTHON to one")
        user.env["PYTHON"] = python
        return user.run(*command, cwd=base / "checkout")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
