"""Directories of identities that have users of their own: the gateway owns them, and shares them by groups.

::

    identities/                          gateway:gateway    0711
    identities/<name>/                   gateway:<identity> 0750   and its files, 0640
    identities/<name>/.tmp/              gateway:<identity> 0770
    identities/<name>/protocols/         gateway:<identity> 0750   and a directory of each protocol
    identities/<name>/protocols/<P>/<i>/ gateway:<identity> 0770   and the daemon's files in it, 0640

The user of an identity has the number of its directory's group. So that number is on disk as soon as the identity is,
and no other file says it. Files of an identity's process belong to that user.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import StorageFailed

from . import atomic_files
from .permission_store import PermissionStore

OWN: Final = 0o750
"""Mode of a directory that the identity's process only reads."""
WORKSPACE: Final = 0o770
"""Mode of a directory to which the identity's process writes."""
WRITABLE: Final = ".tmp"
_RESTORE: Final = ".restore-"

_range: tuple[int, int] | None = None


def share_with(first: int, last: int) -> None:
    """Share what this process writes from now on with the users from ``first`` to before ``last``."""
    global _range
    _range = (first, last)
    atomic_files.inherit_groups()


def user_of(directory: Path, first: int, last: int) -> int:
    """Return the user of an identity, given its directory; -1 if it has none."""
    with suppress(OSError):
        group = directory.lstat().st_gid
        if first <= group < last:
            return group
    return -1


def free_user(root: Path, first: int, last: int) -> int:
    """Return a number that no identity has, and none had whose files are left.

    Args:
        root: directory of all identities.
        first, last: the range.

    Raises:
        StorageFailed: there is none.
    """
    used = {user_of(each, first, last) for each in _directories(root)} - {-1}
    number = max(used, default=first - 1) + 1
    if number >= last:
        number = next((each for each in range(first, last) if each not in used), -1)
    if number < 0:
        reason = f"all {last - first:,} users of identities are taken: start the daemon with a larger range"
        raise StorageFailed(path=str(root), reason=reason)
    return number


def _directories(root: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from root.iterdir()
    yield from root.glob(f"{_RESTORE}*/*")


def share_identity(directory: Path) -> None:
    """Give a new identity a user, and the directories that its process may not make. Raises StorageFailed."""
    if _range is None:
        return
    root = directory.parent
    if root.name.startswith(_RESTORE):
        root = root.parent
    if user_of(directory, *_range) < 0:
        _set_group(directory, free_user(root, *_range), OWN)
    for name, mode in (("protocols", OWN), (WRITABLE, WORKSPACE)):
        atomic_files.make_directory(directory / name)
        _set_group(directory / name, -1, mode)
    PermissionStore.at(directory.parent).complete(directory.name, dict)


def share_workspace(workspace: Path) -> None:
    """Let the identity's process write to a workspace. Raises StorageFailed."""
    if _range is not None:
        _set_group(workspace, -1, WORKSPACE)


def _set_group(directory: Path, group: int, mode: int) -> None:
    try:
        os.chown(directory, -1, group, follow_symlinks=False)
        directory.chmod(mode)
    except OSError as error:
        raise StorageFailed(path=str(directory), reason=atomic_files.error_text(error)) from error
