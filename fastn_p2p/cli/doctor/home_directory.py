"""Checks of the home directory: who may change it, secrets, sockets, and the disk that it is on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_actors.gateway.disk_guard import space_of
from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home

from ...console.formatting import format_size
from ..netcheck.check import OK, PROBLEM, UNKNOWN, WARNING, Check

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
"""Kinds of file systems on which locks and Unix sockets may not hold."""


def check_home(home: Home) -> Iterator[Check]:
    """Return checks of the home: its owner and mode, and those of its secrets."""
    try:
        home.check()
    except HomeUnusable as error:
        yield Check(name="home", state=PROBLEM, text=str(error), advice="do what the message says")
        return
    if not home.path.exists():
        yield Check(name="home", state=OK, text=f"{home.path} does not exist yet; the daemon makes it")
        return
    writable = os.access(home.path, os.W_OK)
    if home.users_file.exists():
        yield Check(name="home", state=OK, text=f"{home.path}, with a user for each process")
    elif not writable:
        advice = "mount it for writing, or start the daemon as the owner of the home"
        yield Check(name="home", state=PROBLEM, text=f"{home.path} cannot be written", advice=advice)
    else:
        yield Check(name="home", state=OK, text=f"{home.path}, only this user and root may change it")
    yield from _check_secrets(home)


def _check_secrets(home: Home) -> Iterator[Check]:
    """Check that only the owner may read keys."""
    try:
        files = [home.vault, *home.vault.rglob("*")] if home.vault.exists() else []
        open_ones = [each for each in files if not each.is_symlink() and each.stat().st_mode & _OTHERS]
    except OSError as error:
        yield Check(name="secrets", state=UNKNOWN, text=f"{home.vault} cannot be read: {error.strerror}")
        return
    if home.users_file.exists():
        open_ones = [each for each in open_ones if each.stat().st_mode & stat.S_IRWXO]
    if open_ones:
        more = f" and {len(open_ones) - 1} more" if open_ones[1:] else ""
        text = f"others can get at {open_ones[0]}{more}"
        yield Check(name="secrets", state=PROBLEM, text=text, advice=f"chmod -R go= {home.vault}")
    elif files:
        yield Check(name="secrets", state=OK, text="only their owner can read the keys")


def check_sockets(home: Home) -> Iterator[Check]:
    """Return a check of the sockets that programs connect to."""
    if home.daemon_pid() is None:
        if not home.socket_directories():
            advice = "use a --home with a shorter path, or set XDG_RUNTIME_DIR"
            yield Check(name="sockets", state=PROBLEM, text="no directory is short enough for them", advice=advice)
        return
    missing = [each for each in (home.control_socket, home.mailbox("network")) if not _is_socket(each)]
    if missing:
        advice = "wait a second, then restart the daemon. Do not clean up below its directories"
        yield Check(name="sockets", state=PROBLEM, text=f"{missing[0]} is missing", advice=advice)
    else:
        yield Check(name="sockets", state=OK, text=f"in {home.sockets}")


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        return True  # of a daemon whose processes have users of their own
    except OSError:
        return False


def check_disk(home: Home, mounts: Path = Path("/proc/self/mountinfo")) -> Iterator[Check]:
    """Return checks of the space on the home's disk, and of its file system.

    Args:
        mounts: list of what is mounted, as proc(5) describes ``mountinfo``.
    """
    place = home.path
    while not place.exists():
        place = place.parent
    try:
        space = space_of(place)
        kind = _file_system(place, mounts)
    except OSError as error:
        yield Check(name="disk", state=UNKNOWN, text=f"{place}: {error.strerror}")
        return
    text = f"{format_size(space.free)} of {format_size(space.size)} are free"
    advice = "make room: see du -sh in the home, and the old files in logs/"
    if space.is_low:
        files = "" if space.free < space.reserve else f", but only {space.free_files:,} more files"
        yield Check(name="disk", state=PROBLEM, text=f"{text}{files}", advice=advice)
    elif space.free < 2 * space.reserve:
        yield Check(name="disk", state=WARNING, text=text, advice=advice)
    else:
        yield Check(name="disk", state=OK, text=text)
    if kind in _REMOTE:
        text = f"the home is on {kind}, on which locks and sockets may not hold"
        yield Check(name="file system", state=WARNING, text=text, advice="move the home to a disk of this machine")


def _file_system(path: Path, mounts: Path) -> str:
    """Return the kind of the file system that has the path."""
    real, best, kind = os.path.realpath(path), "", ""
    for line in mounts.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        if len(point) >= len(best) and (real == point or real.startswith(f"{point.rstrip('/')}/")):
            best, kind = point, rest.split()[0]
    return kind
