"""Users of the daemon's processes as ``--separate-users`` names them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from fastn_p2p_actors.runtime.separate_users import SeparateUsers
from fastn_p2p_client.errors import HomeUnusable

DEFAULT: Final = {
    "vault": "fastn-vault",
    "network": "fastn-network",
    "gateway": "fastn-gateway",
    "identities": "1900000000-1900000999",
    "programs": "fastn-p2p",
}
"""Users and group of ``deploy/systemd/sysusers.d``. systemd and useradd leave the numbers of the range to nobody."""
MOST_IDENTITIES: Final = 50_000
"""Numbers of the range. The gateway is a member of each group, and the kernel allows a process 65,536."""
_LARGEST: Final = 2**31 - 1


def parse_users(text: str) -> SeparateUsers:
    """Return the users that the text of ``--separate-users`` names: ``default``, or ``key=value`` with commas.

    Raises:
        ValueError: it names none, an unknown one, or a range that belongs to others. The message says which.
    """
    given: dict[str, str] = {}
    for part in text.split(",") if text != "default" else ():
        key, is_pair, value = part.strip().partition("=")
        if not is_pair or key not in DEFAULT or key in given:
            raise ValueError(f"{part.strip()!r} is none of {', '.join(f'{each}=...' for each in DEFAULT)}")
        given[key] = value
    wanted: Mapping[str, str] = {**DEFAULT, **given}
    first, last = _range(wanted["identities"])
    users = SeparateUsers(
        _user(wanted["vault"]),
        _user(wanted["network"]),
        _user(wanted["gateway"]),
        first,
        last,
        _group(wanted["programs"]),
    )
    uids = [users.vault[0], users.network[0], users.gateway[0]]
    if len({*uids, 0}) < len(uids) + 1:
        raise ValueError("vault, network and gateway need three users, none of which is root")
    if any(
        first <= each <= last for each in (*uids, users.vault[1], users.network[1], users.gateway[1], users.programs)
    ):
        raise ValueError(f"identities={first}-{last} contains a user or group of another process")
    return users


def _range(text: str) -> tuple[int, int]:
    import grp
    import pwd

    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal()) or not 0 < int(first) < int(last) <= _LARGEST:
        raise ValueError(f"identities={text} is no range of two or more numbers such as {DEFAULT['identities']}")
    if int(last) - int(first) >= MOST_IDENTITIES:
        raise ValueError(f"identities={text} has more than {MOST_IDENTITIES:,} numbers")
    taken = [user.pw_name for user in pwd.getpwall() if int(first) <= user.pw_uid <= int(last)]
    taken += [group.gr_name for group in grp.getgrall() if int(first) <= group.gr_gid <= int(last)]
    if taken:
        raise ValueError(f"identities={text}: {taken[0]} has one of these numbers. Choose a range that nobody has")
    return int(first), int(last)


def _user(text: str) -> tuple[int, int]:
    import pwd

    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if text.isdecimal() and int(text) <= _LARGEST:
            return int(text), int(text)
        raise ValueError(
            f"there is no user {text!r}. Make it with systemd-sysusers or useradd, or give a number"
        ) from None
    return found.pw_uid, found.pw_gid


def _group(text: str) -> int:
    import grp

    if text.isdecimal() and int(text) <= _LARGEST:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {text!r}. Make it with systemd-sysusers or groupadd") from None


def lead_separate_users(users: SeparateUsers) -> None:
    """Prepare this process, which is root, for children with users of their own. Call it before there are threads.

    The group of programs may read files that it makes from now on.

    Raises:
        HomeUnusable: the users cannot read the daemon's code.
    """
    os.setgroups(())
    os.setresgid(users.programs, users.programs, users.programs)
    os.umask(0o027)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _try_to_read(users.first, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        closed = os.fsdecode(answer.read())
    os.waitpid(child, 0)
    if closed:
        reason = f"user {users.first}, who runs protocols, cannot read it. Install the daemon where every user may read"
        raise HomeUnusable(path=closed, reason=reason)


def _try_to_read(user: int, answer: int) -> None:
    """Write the first file of the daemon's code that the user cannot read, and end. Never returns."""
    try:
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        for path in (sys.executable, os.__file__, __file__, msgspec.__file__):
            try:
                os.close(os.open(path, os.O_RDONLY))
            except OSError:
                os.write(answer, os.fsencode(path))
                break
    finally:
        os._exit(0)
