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
        self._kinds = {name: kind for kind, each in names.items() for name in each}
        words = sorted(filter(None, (*self._kinds, user if user != "root" else "", host)), key=len, reverse=True)
        self._kinds |= {each: kind for each, kind in ((user, "user"), (host, "host")) if each not in self._kinds}
        alternatives = "|".join(map(re.escape, words))
        self._names = re.compile(rf"(?<![A-Za-z0-9_])(?:{alternatives})(?![A-Za-z0-9_])") if words else None

    def replace(self, text: str) -> str:
        """Return the text with pseudonyms."""
        text = _PATH.sub(self._path, text)
        text = _HOST.sub(self._host, text)
        text = _TICKET.sub(lambda found: self._of("ticket", found[0]), text)
        text = _MAC.sub(lambda found: self._of("device", found[0].lower()), text)
        text = _KEY.sub(lambda found: self._of("key", found[0][:_PREFIX]), text)
        text = _NUMBERS.sub(self._address, text)
        if self._names is not None:
            text = self._names.sub(lambda found: self._of(self._kinds[found[0]], found[0]), text)
        return text

    def _of(self, kind: str, value: str) -> str:
        known = self._numbers.get((kind, value))
        if known is None:
            number = 1 + sum(each == kind for each, _ in self._numbers)
            known = self._numbers[kind, value] = f"<{kind}-{number}>"
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
