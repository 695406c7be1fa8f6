"""Checks that no other user of the machine can replace a directory, or what lies in it.

A socket or a key is worth what its path is worth: another user who can write to any directory on the way can put
something else in its place. So every step of the way counts, symbolic links included, as in sshd(8)'s ``StrictModes``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from .errors import HomeUnusable

__all__ = ["check_own_directory", "check_way"]

_MOST_LINKS: Final = 40
"""Symbolic links on one way, path_resolution(7)."""
_WHOLE_SYSTEM: Final = 0xFFFFFFFF
"""User ids that the first user namespace has, user_namespaces(7)."""


def check_own_directory(path: Path) -> None:
    """Check a directory that this user alone may change; one that does not exist yet is fine if its parents are.

    Raises:
        HomeUnusable: another user owns it or may write to it, or the way to it is not safe (``check_way``).
    """
    check_way(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeUnusable(path=str(path), reason=error.strerror or str(error)) from error
    if found.st_uid != os.getuid():
        raise HomeUnusable(path=str(path), reason=f"it belongs to uid {found.st_uid}, this is uid {os.getuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise HomeUnusable(
            path=str(path), reason=f"others may write to it (mode {mode:04o}); `chmod go-w {path}` if that is not meant"
        )


def check_way(path: Path) -> None:
    """Check every directory and link above ``path``, as far as they exist.

    A directory is safe when it belongs to this user or root, and nobody else may write to it; or when it is sticky,
    as ``/tmp`` is: there, others cannot rename what is not theirs.

    Raises:
        HomeUnusable: names the directory, and says what to do.
    """
    at = "/"
    left = os.path.abspath(path).split("/")[:0:-1]  # noqa: PTH100  (links stay as they are)
    links = 0
    while True:
        try:
            _check_directory(path, at, os.lstat(at))
            while left and left[-1] in ("", "."):
                left.pop()
            if not left:
                return
            part = left.pop()
            step = os.path.dirname(at) if part == ".." else os.path.join(at, part)  # noqa: PTH118, PTH120
            found = os.lstat(step)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise HomeUnusable(path=str(path), reason=f"{step} is a symbolic link that leads nowhere")
                _check_owner(path, step, found)
                target = os.readlink(step)  # noqa: PTH115
                at = "/" if target.startswith("/") else at
                left += target.split("/")[::-1]
                continue
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomeUnusable(path=str(path), reason=f"{error.filename}: {error.strerror}") from error
        if not any(each not in ("", ".") for each in left):
            return
        at = step


def _check_directory(path: Path, directory: str, found: os.stat_result) -> None:
    _check_owner(path, directory, found)
    mode = found.st_mode
    if mode & stat.S_ISVTX or not stat.S_ISDIR(mode):
        return
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_own_group(directory, found.st_gid)):
        who, bits = ("every user", "o-w") if mode & stat.S_IWOTH else (f"the group {found.st_gid}", "g-w")
        raise HomeUnusable(
            path=str(path),
            reason=f"{who} of this machine may write to {directory} (mode {stat.S_IMODE(mode):04o}) and could put "
            f"something else in its place; `chmod {bits} {directory}`, or use a --home elsewhere",
        )


def _check_owner(path: Path, step: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.getuid()) and not _is_unmapped(found.st_uid):
        raise HomeUnusable(
            path=str(path),
            reason=f"{step} belongs to uid {found.st_uid}, who could put something else in its place; this is uid "
            f"{os.getuid()}: use a --home below directories of your own",
        )


def _is_own_group(directory: str, group: int) -> bool:
    """Whether nobody but this user is in the group, as where every user has a group of the same name, and no access
    list lets others in (its mask shows as the group's permission)."""
    import grp
    import pwd

    try:
        own = pwd.getpwuid(os.getuid())
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    if group != own.pw_gid or members - {own.pw_name}:
        return False
    if any(each.pw_gid == group and each.pw_uid != own.pw_uid for each in pwd.getpwall()):
        return False
    try:
        return not os.getxattr(directory, "system.posix_acl_access")
    except OSError:
        return True


def _is_unmapped(user: int) -> bool:
    """Whether the number stands for all users that this user namespace does not have, the machine's root among them."""
    try:
        unmapped = int(Path("/proc/sys/kernel/overflowuid").read_text())
        mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except (OSError, ValueError):
        return False
    return user == unmapped and sum(int(count) for _, _, count in mapped) < _WHOLE_SYSTEM
