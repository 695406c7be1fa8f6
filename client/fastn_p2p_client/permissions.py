"""``Permissions``: what a protocol's code needs outside of its workspace.

Each permission is one line of text, as people see it and as the daemon stores it: ``read /srv/files``,
``write /srv/inbox``, ``connect 127.0.0.1:8000``, ``connect unix:/run/web.sock``, ``listen 0.0.0.0:8080``,
``program /usr/bin/git``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ANYWHERE: Final = "*"
"""As an address to connect to: every TCP port of every host, and UDP. As the host of an address: every host."""
_UNIX: Final = "unix:"
KINDS: Final = ("read", "write", "connect", "listen", "program")
"""First words of permissions."""
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Files and sockets outside of its workspace that a protocol's code needs. Empty: none.

    Attributes:
        read: files and directories, with everything below, that it reads. Absolute, or with ``~``.
        write: those that it reads, changes and deletes.
        connect: addresses that it connects to: ``"127.0.0.1:8000"``, ``"[::1]:8000"``, ``"example.org:443"``,
            ``"*:443"`` (any host), ``"unix:/run/web.sock"``, or ``"*"`` (anything). The kernel checks TCP ports, not
            hosts.
        listen: addresses on which it listens for TCP, for instance ``"0.0.0.0:8080"``.
        programs: programs that it runs, as absolute paths. With one it may also fork.
    """

    read: Iterable[str | os.PathLike[str]] = field(default=())
    write: Iterable[str | os.PathLike[str]] = field(default=())
    connect: Iterable[str] = field(default=())
    listen: Iterable[str] = field(default=())
    programs: Iterable[str | os.PathLike[str]] = field(default=())

    def lines(self) -> tuple[str, ...]:
        """Return one line for each permission, without repetitions.

        Raises:
            ValueError: a path is not absolute, or an address is none.
        """
        found = [
            *(f"read {_path(each)}" for each in self.read),
            *(f"write {_path(each)}" for each in self.write),
            *(f"connect {_address(each)}" for each in self.connect),
            *(f"listen {_address(each)}" for each in self.listen),
            *(f"program {_path(each)}" for each in self.programs),
        ]
        return tuple(dict.fromkeys(found))

    @classmethod
    def of(cls, lines: Iterable[str]) -> Permissions:
        """Return the permissions that these lines name.

        Args:
            lines: a kind and a value each, as ``lines()`` returns them: ``read /srv/files``.

        Raises:
            ValueError: a line names none.
        """
        values: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for line in lines:
            kind, _, value = line.partition(" ")
            if kind not in values or not value:
                raise ValueError(f"{line[:200]!r} is no permission")
            values[kind].append(value)
        made = cls(values["read"], values["write"], values["connect"], values["listen"], values["program"])
        made.lines()
        return made


def missing(wanted: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of ``wanted`` that no line of ``granted`` covers.

    A directory covers what is below it, and ``write`` covers ``read``.
    """
    held = tuple(granted)
    return tuple(line for line in wanted if not any(_covers(each, line) for each in held))


def _covers(held: str, wanted: str) -> bool:
    if held == wanted:
        return True
    kind, _, value = held.partition(" ")
    need, _, target = wanted.partition(" ")
    if kind in ("read", "write") and need in (("read",) if kind == "read" else ("read", "write")):
        return Path(target).is_relative_to(value)
    return kind == need == "connect" and value == ANYWHERE and not target.startswith(_UNIX)


def port_of(address: str) -> int | None:
    """Return the TCP port of an address; None of a Unix socket and of ``*``."""
    found = _ADDRESS.fullmatch(address)
    return None if found is None else int(found[1])


def unix_path_of(address: str) -> str:
    """Return the path of a Unix socket's address; empty for any other."""
    return address.removeprefix(_UNIX) if address.startswith(_UNIX) else ""


def needs_resolver(address: str) -> bool:
    """Return whether connecting to the address needs name resolution, which needs UDP."""
    host = address.rpartition(":")[0]
    if unix_path_of(address) or host == "localhost" or host.startswith("["):
        return False
    return re.fullmatch(r"[0-9.]+", host) is None


def _path(value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if not path.is_absolute() or "\0" in text or "\n" in text:
        raise ValueError(f"{text[:200]!r} is not an absolute path")
    return os.path.normpath(path)


def _address(value: str) -> str:
    if value == ANYWHERE:
        return value
    if value.startswith(_UNIX):
        return _UNIX + _path(value.removeprefix(_UNIX))
    found = _ADDRESS.fullmatch(value)
    if found is None or not 0 <= int(found[1]) <= 65535:
        raise ValueError(f"{value[:200]!r} is not an address. Write HOST:PORT, unix:PATH or *")
    return value
