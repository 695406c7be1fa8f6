"""Owners and modes of a home whose processes have users of their own: taken over at the start, and given back.

Problem: the home of before belongs to one user, whose processes may be hostile, and a crash may happen at any file.
Idea: who owns what follows from the path alone, so the walk can be repeated. ``users.json`` is removed before it and
written after it: while it says the wanted users, all is done. The home itself becomes root's first, so that nobody puts
other files in its place. A directory is given after all in it, so until then its owner says whose files a walk may give
away. It follows no link, and changes only what belonged to that user or to one of the daemon's. Links are removed where
root writes. Cost: one walk at the first start, and when the users change.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_actors.runtime.separate_users import SeparateUsers
from fastn_p2p_actors.storage.atomic_files import remove_file, write_atomically
from fastn_p2p_actors.storage.identity_store import IdentityStore
from fastn_p2p_actors.storage.shared_directories import OWN, WORKSPACE, free_user, user_of
from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE

PASSABLE: Final = 0o711
"""Mode of directories through which each process has to go, and which only their owner may list."""
_PRIVATE: Final = 0o700
_READABLE: Final = 0o640
_NETWORK_FILES: Final = ("network.port", "time", "programs.json", "reconnect.json", "neighbours.json")
"""Files in ``run/`` that the network process keeps over restarts."""

log = logging.getLogger("supervisor")


class Owner(NamedTuple):
    """Owner, group and mode of a file; no mode leaves it as it is."""

    uid: int
    gid: int
    mode: int | None = None


def separate(home: Home, users: SeparateUsers) -> None:
    """Give each process's files to its user. May be repeated after a crash at any moment. Only root can.

    Raises:
        HomeUnusable: a link leads to one of its directories.
        OSError: a file cannot be changed.
        StorageFailed: there are more identities than users for them.
    """
    before = users_of(home)
    former = home.path.lstat().st_uid
    if before != users or former:
        log.info("the home is given to the users of the daemon's processes")
        remove_file(home.users_file)
        os.chown(home.path, 0, 0)
        home.path.chmod(_PRIVATE)  # from here on nobody else can put other files in its place
        for each in _tops(home):
            if each.is_symlink():
                raise HomeUnusable(path=str(each), reason="it is a link. Put a directory there, or mount one")
        numbers = {former, *users.numbers, *_numbers(before), *(each.lstat().st_uid for each in _tops(home))}
        _assign_users(home, users)
        run = home.path / "run"
        _make(run / "network", users.network)
        _move(run, run / "network")
        _walk(home.path, lambda parts: _separate_owner(home, users, parts), numbers)
    _set_owners_of_directories(home, users)
    for directory in (home.path, home.path / "run", home.logs):
        _remove_planted(directory)
    if before != users or former:
        write_atomically(home.users_file, msgspec.json.encode(users))


def _tops(home: Home) -> tuple[Path, ...]:
    return (home.path / "run", home.logs, home.vault, home.peers, home.identities)


def _assign_users(home: Home, users: SeparateUsers) -> None:
    """Assign a user to each identity without one. Raises StorageFailed if there are not enough."""
    for name in IdentityStore(home).names():
        directory = home.identities / name
        if user_of(directory, users.first, users.last) < 0:
            os.chown(directory, -1, free_user(home.identities, users.first, users.last), follow_symlinks=False)


def _remove_planted(directory: Path) -> None:
    """Remove links and the like from a directory to which root writes: the user of before may have left them there."""
    for each in directory.iterdir():
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            if not stat.S_ISSOCK(found.st_mode):
                log.warning("%s was a link or no file, and is removed", each)
            each.unlink()


def join(home: Home) -> None:
    """Give all files of a home back to this process's user, if they belong to the users of separate processes.

    May be repeated after a crash at any moment.

    Raises:
        OSError: a file cannot be changed, for example because this is not root.
    """
    before = users_of(home)
    if before is None:
        return
    log.info("the home is given back to one user")
    own = os.getuid()
    numbers = {own, *_numbers(before)}
    _walk(home.path, lambda parts: Owner(own, os.getgid(), _joined_mode(parts)), numbers)
    home.path.chmod(_PRIVATE)
    run = home.path / "run"
    _move(run / "network", run)
    for directory in (run / "network", *run.glob("identity-*")):
        with suppress(OSError):
            directory.rmdir()  # marks of running code, of which nothing is missing after a restart, keep it
    remove_file(home.users_file)


def users_of(home: Home) -> SeparateUsers | None:
    """Return the users to whom a home was given completely; None if it has one user, or if that was interrupted."""
    try:
        return msgspec.json.decode(home.users_file.read_bytes(), type=SeparateUsers)
    except (OSError, *UNDECODABLE):
        return None


def _numbers(users: SeparateUsers | None) -> set[int]:
    return set() if users is None else {*users.numbers, *range(users.first, users.last + 1)}


def _separate_owner(home: Home, users: SeparateUsers, parts: tuple[str, ...]) -> Owner:
    """Return the owner of the file at this path below the home."""
    match parts:
        case ("vault", *_):
            return Owner(*users.vault)
        case ("peers", *_) | ("run", "network", *_):
            return Owner(*users.network)
        case ("identities", name, *rest):
            number = user_of(home.identities / name, users.first, users.last)
            return Owner(*users.gateway) if number < 0 else _identity_owner(users.gateway[0], number, tuple(rest))
        case ("identities",):
            return Owner(*users.gateway, PASSABLE)
        case ("run", name, *_) if name.startswith("identity-"):
            number = user_of(home.identities / name.removeprefix("identity-").split(".")[0], users.first, users.last)
            return (
                Owner(number, number)
                if number >= 0 and (home.path / "run" / name).is_dir()
                else Owner(0, users.programs)
            )
        case ("run",) | ("logs",):
            return Owner(0, users.programs, PASSABLE)
        case ("migrated", *_):
            return Owner(0, 0)
        case _:
            return Owner(0, users.programs, _READABLE)


def _identity_owner(gateway: int, number: int, parts: tuple[str, ...]) -> Owner:
    match parts:
        case () | ("protocols",) | ("protocols", _):
            return Owner(gateway, number, OWN)
        case ("protocols", _, _) | (".tmp",):
            return Owner(gateway, number, WORKSPACE)
        case ("protocols", _, _, "config.json" | ".config.json.pending" | ".kept" | ".created"):
            return Owner(gateway, number, _READABLE)
        case ("protocols", _, _, *_) | (".tmp", *_):
            return Owner(number, number)
        case _:
            return Owner(gateway, number, _READABLE)


def _joined_mode(parts: tuple[str, ...]) -> int | None:
    """Return the mode of a directory that others could enter, when it is private again."""
    match parts:
        case ("run" | "logs" | "identities" | "vault" | "peers",) | ("identities", _) | ("identities", _, "protocols"):
            return _PRIVATE
        case ("identities", _, ".tmp") | ("identities", _, "protocols", _) | ("identities", _, "protocols", _, _):
            return _PRIVATE
        case _:
            return None


def _set_owners_of_directories(home: Home, users: SeparateUsers) -> None:
    """Set owner and mode of the directories of the home, and last of the home itself."""
    for directory, (uid, gid), mode in (
        (home.path / "run", (0, users.programs), PASSABLE),
        (home.logs, (0, users.programs), PASSABLE),
        (home.vault, users.vault, _PRIVATE),
        (home.peers, users.network, _PRIVATE),
        (home.identities, users.gateway, PASSABLE),
        (home.path, (0, 0), PASSABLE),
    ):
        os.chown(directory, uid, gid, follow_symlinks=False)
        directory.chmod(mode)


def _make(directory: Path, owner: tuple[int, int]) -> None:
    if directory.is_symlink():
        directory.unlink()
    with suppress(FileExistsError):
        directory.mkdir(_PRIVATE)
    os.chown(directory, *owner, follow_symlinks=False)


def _move(source: Path, target: Path) -> None:
    """Move the files that the network process keeps over restarts."""
    for name in _NETWORK_FILES:
        with suppress(FileNotFoundError):
            if stat.S_ISREG((source / name).lstat().st_mode):
                (source / name).replace(target / name)


def _walk(root: Path, owner_of: Callable[[tuple[str, ...]], Owner], numbers: set[int]) -> None:
    """Give everything below a directory away that belongs to one of these users."""
    for folder, directories, files, descriptor in os.fwalk(root, topdown=False):
        parts = Path(folder).relative_to(root).parts
        for name in (*files, *directories):  # so that one of before owns a directory until all in it is done
            _set_owner(descriptor, name, owner_of((*parts, name)), numbers, Path(folder, name))


def _set_owner(directory: int, name: str, owner: Owner, numbers: set[int], shown: Path) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    is_linked = stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and not found.st_uid  # perhaps a file of the system
    if found.st_uid not in numbers or (is_linked and owner.uid):
        if found.st_uid != owner.uid:
            log.warning("%s belongs to user %d, and is left to that user", shown, found.st_uid)
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        os.chown(name, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)
        return
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if (found.st_uid, found.st_gid) != owner[:2]:
            os.fchown(opened, owner.uid, owner.gid)
        if owner.mode is not None:
            os.fchmod(opened, owner.mode)
    finally:
        os.close(opened)
