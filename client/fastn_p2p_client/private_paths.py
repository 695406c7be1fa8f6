"""Checks that no other user of the machine can replace a directory or its content.

Another user who can write to any directory of a path can replace the socket or key at its end. So every step of the
path is checked, symbolic links included, as by sshd(8)'s ``StrictModes``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from .errors import HomeUnusable

_MAX_LINKS: Final = 40
"""Symbolic links in one path, path_resolution(7)."""
_ALL_UIDS: Final = 0xFFFFFFFF
"""Number of user ids in the initial user namespace, user_namespaces(7)."""


def directory_closed_to_owner(path: Path) -> Path | None:
    """Return the directory on the way to a path, or at its end, that this user owns and its mode closes to them."""
    own = os.geteuid()
    for each in (*reversed(path.parents), path):
        try:
            found = each.stat()
        except OSError:
            return None
        if stat.S_ISDIR(found.st_mode) and found.st_uid == own != 0 and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            return each
    return None


def unusable_reason(error: OSError, path: Path) -> str:
    """Return why a path cannot be used, with the command that opens a directory whose mode keeps this user out."""
    closed = directory_closed_to_owner(path) if isinstance(error, PermissionError) else None
    if closed is None:
        return error.strerror or str(error)
    return f"the mode of {closed} keeps its owner out: chmod u+rwx {closed}"


def check_own_directory(path: Path, owners: Collection[int] = ()) -> None:
    """Check that only this user may change a directory. A missing one passes if its parents do.

    Args:
        path: the directory.
        owners: other users who may own it.

    Raises:
        HomeUnusable: another user owns it or may write to it, or can replace a directory above it.
    """
    check_parents(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeUnusable(path=str(path), reason=unusable_reason(error, path)) from error
    if found.st_uid != os.getuid() and found.st_uid not in owners:
        raise HomeUnusable(path=str(path), reason=f"it belongs to uid {found.st_uid}, this is uid {os.getuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise HomeUnusable(
            path=str(path), reason=f"others may write to it (mode {mode:04o}). Forbid that: chmod go-w {path}"
        )


def check_safe_directory(path: Path) -> None:
    """Check that only this user or root may change a directory. Raises as ``check_own_directory``."""
    check_own_directory(path, (0,))


def check_parents(path: Path) -> None:
    """Check every existing directory and symbolic link above ``path``.

    A directory is safe if it belongs to this user or root, and no other user may write to it. A sticky directory like
    ``/tmp`` is safe too, because there no user can rename the files of others.

    Raises:
        HomeUnusable: another user can replace a part of the path. The error names the directory and the remedy.
    """
    at = "/"
    left = os.path.abspath(path).split("/")[:0:-1]  # noqa: PTH100  (symbolic links are not resolved)
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
                if links > _MAX_LINKS:
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
        writer, bits = ("every user", "o-w") if mode & stat.S_IWOTH else (f"the group {found.st_gid}", "g-w")
        raise HomeUnusable(
            path=str(path),
            reason=f"{writer} of this machine may write to {directory} (mode {stat.S_IMODE(mode):04o}) and could "
            f"replace it. Forbid that: chmod {bits} {directory}; or use a --home elsewhere",
        )


def _check_owner(path: Path, step: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.getuid()) and not _is_unmapped(found.st_uid):
        raise HomeUnusable(
            path=str(path),
            reason=f"{step} belongs to uid {found.st_uid}, who could replace it, and this is uid {os.getuid()}. "
            "Use a --home below directories of your own",
        )


def _is_own_group(directory: str, group: int) -> bool:
    """Return whether only this user may write by the permission of the group.

    That is so if the group is the user's own and has no other member, and there is no access list (ACL), whose mask
    shows as the group's permission.
    """
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
    """Return whether the uid stands for all users that this user namespace lacks, the machine's root among them."""
    try:
        unmapped = int(Path("/proc/sys/kernel/overflowuid").read_text())
        mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except (OSError, ValueError):
        return False
    return user == unmapped and sum(int(count) for _, _, count in mapped) < _ALL_UIDS


def read_private_file(path: Path, limit: int = 64 * 1024) -> str:
    """Return the text of a small file that holds a secret.

    Raises:
        ValueError: it cannot be read, others can read it, it is no text, or longer than ``limit`` bytes. The message
            says what to do.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                raise ValueError(f"it is no file of at most {limit} bytes")
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ValueError(f"others can read it. Run: chmod 600 {path}")
            return file.read(limit).decode()
    except OSError as error:
        raise ValueError(f"it cannot be read: {(error.strerror or type(error).__name__).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None
