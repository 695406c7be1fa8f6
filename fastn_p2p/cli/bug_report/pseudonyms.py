"""Pseudonyms: the same name, key or address becomes the same numbered word everywhere in a text.

The text is replaced as a whole, not field by field, because errors and log lines repeat names in their words. What is
known by its form (keys, tickets, addresses, hosts of URLs, paths) needs no list; names of identities, peers and groups
are listed. Not covered: a host name outside of a URL, and a path after its first space.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from fastn_p2p_actors.daemon_settings.sections import DEFAULT_DIRECTORIES, DEFAULT_RELAYS

_PATH: Final = re.compile(r"(?<![\w.:/~<>-])/[\w.~+@%-][^\s'\"`,;()<>]*")
_HOST: Final = re.compile(r"(?<=://)(\[[0-9a-fA-F:.%]+\]|[^/\s'\"`,;:()<>]+)")
_TICKET: Final = re.compile(r"\bfastn1[0-9a-v]{20,}")
_KEY: Final = re.compile(r"(?<![A-Za-z0-9+_-])[A-Za-z0-9+_-]{40,}={0,2}|\b(?=[0-9]*[a-f])[0-9a-f]{10}\b")
_NUMBERS: Final = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F.]{0,15}){2,8})")
_MAC: Final = re.compile(r"\b[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\b")
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
"""Form of the names of identities, peers and groups."""
_RUN: Final = re.compile(r"<[a-z0-9]+(?:-[a-z]+)?-[0-9]+>|(?<![A-Za-z0-9_])[A-Za-z0-9_][A-Za-z0-9_-]*")
"""Pseudonym, or characters among which there may be names."""
_START: Final = re.compile(r"(?<![A-Za-z0-9_])[a-z]")
_PREFIX: Final = 10
"""Hexadecimal digits by which logs name an endpoint."""
_SYSTEM: Final = ("/usr/", "/proc/", "/sys/", "/dev/", "/etc/", "/lib", "/bin/", "/sbin/", "/opt/fastn")
_PUBLIC_HOSTS: Final = frozenset(url.split("/")[2] for url in (*DEFAULT_RELAYS, *DEFAULT_DIRECTORIES)) | {"localhost"}


class Pseudonyms:
    """Replaces what identifies people and machines.

    Args:
        home: the daemon's home directory.
        names: kind (``identity``, ``peer``, ``group``) → names.
        user: name of this user; empty for none.
        host: name of this machine; empty for none.
    """

    def __init__(self, home: Path, names: Mapping[str, Collection[str]], user: str = "", host: str = "") -> None:
        self._home = str(home)
        self._numbers: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}
        """Last number of each kind."""
        self._kinds = {name: kind for kind, each in names.items() for name in each}
        for each, kind in (("" if user == "root" else user, "user"), (host, "host")):
            if each:
                self._kinds.setdefault(each, kind)
        self._longest = max(map(len, self._kinds), default=0)
        others = sorted((each for each in self._kinds if not _NAME.fullmatch(each)), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, others))
        self._others = re.compile(rf"(?<![A-Za-z0-9_])(?:{alternatives})(?![A-Za-z0-9_])") if others else None
        """Words of another form. They are few, so a pattern may try each."""

    def replace(self, text: str) -> str:
        """Return the text with pseudonyms."""
        text = _PATH.sub(self._path, text)
        text = _HOST.sub(self._host, text)
        text = _TICKET.sub(lambda found: self._of("ticket", found[0]), text)
        text = _MAC.sub(lambda found: self._of("device", found[0].lower()), text)
        text = _KEY.sub(lambda found: self._of("key", found[0][:_PREFIX]), text)
        text = _NUMBERS.sub(self._address, text)
        if self._others is not None:
            text = self._others.sub(lambda found: self._of(self._kinds[found[0]], found[0]), text)
        return _RUN.sub(self._run, text)

    def _run(self, found: re.Match[str]) -> str:
        """Replace the names in a run, the longest at each place. There may be thousands, so none is searched for."""
        run = found[0]
        if run.startswith("<"):
            return run
        parts: list[str] = []
        done = 0
        for start in (each.start() for each in _START.finditer(run)):
            if start >= done and (name := self._name_at(run, start)):
                parts += run[done:start], self._of(self._kinds[name], name)
                done = start + len(name)
        return "".join((*parts, run[done:]))

    def _name_at(self, run: str, start: int) -> str:
        """Return the longest name that begins there and ends where no letter, digit or underscore follows."""
        for end in range(min(len(run), start + self._longest), start, -1):
            if (end == len(run) or run[end] == "-") and run[start:end] in self._kinds:
                return run[start:end]
        return ""

    def _of(self, kind: str, value: str) -> str:
        known = self._numbers.get((kind, value))
        if known is None:
            self._last[kind] = self._last.get(kind, 0) + 1
            known = self._numbers[kind, value] = f"<{kind}-{self._last[kind]}>"
        return known

    def _path(self, found: re.Match[str]) -> str:
        path = found[0]
        if path == self._home or path.startswith(f"{self._home}/"):
            return f"<home>{path.removeprefix(self._home)}"
        if path.startswith((*_SYSTEM, sys.prefix, sys.base_prefix)):
            return path
        code = re.search(r"/(?:fastn_p2p|site-packages)\w*/.*", path)
        return f"…{code[0]}" if code is not None else self._of("path", path)

    def _host(self, found: re.Match[str]) -> str:
        host = found[0].lower()
        if host in _PUBLIC_HOSTS or _KEY.fullmatch(host):  # a key of a fastn-p2p:// URI is replaced as such
            return found[0]
        kind = _kind_of(host)
        return found[0] if kind == "" else self._of(kind or "host", host)

    def _address(self, found: re.Match[str]) -> str:
        kind = _kind_of(found[0])
        return self._of(kind, found[0]) if kind else found[0]


def _kind_of(text: str) -> str | None:
    """Return the kind of an address: empty for one that every machine has; None if it is no address."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return ""
    family = f"ipv{address.version}"
    return f"{family}-{'link' if address.is_link_local else 'public' if address.is_global else 'private'}"
