"""Users of their own for the daemon's processes, and how a process becomes one of them.

The supervisor and the fork server stay root. A child opens, as root, what only root may open: its mailboxes in ``run/``
and its log. Then it takes its user for ever, before it reads any input.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.limits import BACKLOG

_SHARED: Final = 0o660
"""Mode of a mailbox."""
_PRIVATE: Final = 0o700


class SeparateUsers(msgspec.Struct, frozen=True):
    """Users of one daemon.

    Attributes:
        vault, network, gateway: uid and gid of each.
        first, last: range of the identities' users. Each has a group with the same number. The last one runs code that
            belongs to no identity.
        programs: group whose members may use the daemon.
    """

    vault: tuple[int, int]
    network: tuple[int, int]
    gateway: tuple[int, int]
    first: int
    last: int
    programs: int

    def is_identity(self, number: int) -> bool:
        """Return whether the number is a user that an identity can have."""
        return self.first <= number < self.last

    @property
    def numbers(self) -> frozenset[int]:
        """Uids of all but the identities."""
        return frozenset({self.vault[0], self.network[0], self.gateway[0]})


class ProcessAccount(msgspec.Struct, frozen=True):
    """User that a child takes.

    Attributes:
        uid, gid, groups: its user, group and further groups.
        umask: bits that its new files lack.
        callers: users that may connect to its mailboxes; empty for all but those of ``refused``.
        refused: first and last user of identities.
        mailbox_group: group that may connect to its mailboxes.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o077
    callers: tuple[int, ...] = ()
    refused: tuple[int, int] = (0, -1)
    mailbox_group: int = 0

    def admits(self, uid: int) -> bool:
        """Return whether a process of this user may connect. The modes of the sockets say the same."""
        if self.callers:
            return uid in self.callers
        return not self.refused[0] <= uid <= self.refused[1]


def account_of(users: SeparateUsers, actor: str, identity: int = -1) -> ProcessAccount:
    """Return the account of a child.

    Args:
        users: the daemon's users.
        actor: its name.
        identity: user of the identity, if it runs code of one.
    """
    gateway, refused = users.gateway, (users.first, users.last)
    if actor == "vault":
        return ProcessAccount(*users.vault, callers=(0, gateway[0]), mailbox_group=gateway[1])
    if actor == "network":
        return ProcessAccount(*users.network, refused=refused, mailbox_group=users.programs)
    if actor == "gateway":
        groups = (users.programs, *range(users.first, users.last + 1))
        return ProcessAccount(*gateway, groups, 0o027, refused=refused, mailbox_group=users.programs)
    return ProcessAccount(
        identity, identity, umask=0o027, callers=(0, gateway[0]), refused=refused, mailbox_group=gateway[1]
    )


_account: ProcessAccount | None = None


def own_account() -> ProcessAccount | None:
    """Return the account that this process has taken; None if the daemon has one user for all."""
    return _account


def may_connect(uid: int) -> bool:
    """Return whether a process of this user may connect to the mailboxes of this process."""
    return uid == os.getuid() if _account is None else _account.admits(uid)


def become_user(account: ProcessAccount) -> None:
    """Become this user for ever. The kernel takes all capabilities away. Raises OSError."""
    global _account
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    os.umask(account.umask)
    _account = account


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Have the kernel check this process as if it were the user. No effect unless it is root and the user is not.

    Root could open any file and connect to any socket.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def open_mailboxes(home: Home, actor: str, account: ProcessAccount) -> dict[str, socket.socket]:
    """Return listening sockets by name, which only the group of the account's callers and root may connect to.

    Each appears under its name at once with its mode, so that no program is refused meanwhile.
    """
    if actor == "gateway":
        return {"control": _listen(home.control_socket, account.mailbox_group)}
    opened = {actor: _listen(home.mailbox(actor), account.mailbox_group)}
    if actor == "vault":
        opened["keys"] = _listen(home.mailbox("keys"), 0, socket.SOCK_SEQPACKET)
    return opened


def _listen(path: Path, group: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = path.with_name(f".{path.name}"[: len(path.name)])  # no longer than the name, which fits
    with suppress(FileNotFoundError):
        made.unlink()
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.setblocking(False)
        listener.bind(str(made))
        os.chown(made, 0, group)
        made.chmod(_SHARED)
        listener.listen(BACKLOG)
        made.replace(path)
    except OSError:
        listener.close()
        raise
    return listener


def make_runtime_directory(home: Home, actor: str, account: ProcessAccount) -> None:
    """Make the directory in ``run/`` for files of this child, if it has some."""
    runtime_directory = home.runtime_directory(actor)
    if runtime_directory is None:
        return
    with suppress(FileExistsError):
        runtime_directory.mkdir(_PRIVATE)
    os.chown(runtime_directory, account.uid, account.gid)
