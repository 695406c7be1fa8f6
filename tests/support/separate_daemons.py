"""Daemons whose processes have users of their own, for tests that are root."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.daemons import CLI, Daemon
from tests.support.protocols import ROOT

VAULT: Final = 60600
NETWORK: Final = 60601
GATEWAY: Final = 60602
PROGRAMS: Final = 60603
"""Group of those who may use the daemon."""
FIRST: Final = 60610
LAST: Final = 60619
USERS: Final = f"vault={VAULT},network={NETWORK},gateway={GATEWAY},identities={FIRST}-{LAST},programs={PROGRAMS}"
"""Numbers that neither systemd nor useradd gives to anybody."""


def readable_code() -> list[str]:
    """Return a command that runs another one where every user may read Python and the daemon's code.

    Root's home is often closed, and tests of developers and of CI have their interpreter there. So in a mount namespace
    of its own, an empty directory covers each closed one, with only what is needed in it.
    """
    needed = sorted({str(Path(each).resolve()) for each in (sys.base_prefix, sys.prefix, ROOT)})
    closed = sorted({each for path in needed if (each := _closed_above(Path(path)))})
    if not closed:
        return []
    steps = ["set -e", "kept=$(mktemp -d)"]
    for number, path in enumerate(needed):
        steps += [f"mkdir $kept/{number}", f"mount --bind '{path}' $kept/{number}"]
    steps += [f"mount -t tmpfs -o mode=755 none '{path}'" for path in closed]
    for number, path in enumerate(needed):
        if any(path.startswith(f"{each}/") for each in closed):
            steps += [f"mkdir -p '{path}'", f"mount --bind $kept/{number} '{path}'"]
        steps += [f"umount $kept/{number}", f"rmdir $kept/{number}"]
    return ["unshare", "--mount", "sh", "-c", "; ".join([*steps, "rmdir $kept", 'exec "$@"']), "sh"]


def _closed_above(path: Path) -> str:
    """Return the uppermost directory above a place that other users may not pass; empty without one."""
    for each in reversed(path.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            return str(each)
    return ""


def _unit_privileges() -> list[str]:
    """Return a command that runs another one with the capabilities that the unit for systemd leaves it."""
    unit = (ROOT / "deploy/systemd/fastn-p2p-separate.service").read_text()
    line = next(line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = [each.removeprefix("CAP_").lower() for each in line.partition("=")[2].split()]
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(f'+{each}' for each in kept)}"]


class SeparateDaemon(Daemon):
    """Daemon whose processes have users of their own."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder / "home", folder / "hosts", **env)
        self.command = (*readable_code(), *_unit_privileges(), *CLI, "daemon")
        self.env["FASTN_SEPARATE_USERS"] = USERS
        hosts = Path(self.env["FASTN_HOST_DIRECTORY"])
        hosts.mkdir(mode=0o700)
        os.chown(hosts, NETWORK, NETWORK)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def can_separate() -> bool:
    """Return whether this machine lets root become users without accounts, where those may read the code."""
    try:
        done = subprocess.run([*as_user(FIRST), sys.executable, "-c", ""], stderr=subprocess.DEVNULL, check=False)
    except OSError:  # there is no setpriv or unshare
        return False
    return done.returncode == 0


def as_user(user: int, *groups: int) -> list[str]:
    """Return a command that runs another one as a user."""
    listed = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [*readable_code(), "setpriv", f"--reuid={user}", f"--regid={user}", listed]
