"""Names for completion: in the home directory, and of what is installed. Nothing is sent to the daemon.

What cannot be read has no names: another user's home, or a damaged file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.home import Home

T = TypeVar("T")

_SECTION: Final = "[fastn_p2p.protocols]"
_MOST_IDENTITIES: Final = 500
"""Identities that are looked at for a word that no identity is named for. A look takes 50 µs."""
_OPEN: Final = frozenset({"waiting", "accepted"})
"""States of an offer that somebody may still decide about."""


class HomeNames:
    """Names in one home directory.

    Args:
        home: value of ``--home``; None for the one of the environment.

    Raises:
        HomeUnusable: its path is no text, or has no meaning.
    """

    def __init__(self, home: str | None) -> None:
        self._home = Home.find(home)

    def identities(self) -> list[str]:
        """Return the names of identities."""
        return _entries(self._home.identities)

    def peers(self) -> list[str]:
        """Return the names in the address book."""
        return [name.removesuffix(".json") for name in _entries(self._home.peers) if name.endswith(".json")]

    def groups(self) -> list[str]:
        """Return the names of groups of peers."""
        return list(_table(self._home.peers / ".groups.json", "groups", dict))

    def slots(self) -> list[str]:
        """Return the names of the vault's slots."""
        return [
            str(each.get("name", ""))
            for each in _table(self._home.vault_slots, "slots", list)
            if isinstance(each, dict)
        ]

    def protocols(self, owner: str) -> list[str]:
        """Return the protocols of an identity; of all identities and installed ones if ``owner`` is none."""
        if owner and (self._home.identities / owner).is_dir() and os.sep not in owner:
            added = _entries(self._home.identities / owner / "protocols")
            return added or installed_protocols()
        some = self.identities()[:_MOST_IDENTITIES]
        found = (each for name in some for each in _entries(self._home.identities / name / "protocols"))
        return [*found, *installed_protocols()]

    def instances(self, owner: str, protocol: str) -> list[str]:
        """Return the instances of a protocol, or of all. If ``owner`` is no identity, those of all identities."""
        return [path.name for path in self._bindings(owner) if not protocol or path.parent.name == protocol]

    def bindings(self, owner: str) -> list[str]:
        """Return protocols and ``PROTOCOL/INSTANCE`` of an identity, or of all."""
        found = [(path.parent.name, path.name) for path in self._bindings(owner)]
        return [name for protocol, instance in found for name in (protocol, f"{protocol}/{instance}")]

    def offers(self, owner: str, instance: str) -> list[str]:
        """Return the ids of offers that are not finished or rejected."""
        found = []
        for path in self._bindings(owner):
            if (path.parent.name, path.name) == ("FileTransfer", instance):
                for name in _entries(path / "offers"):
                    state = _table(path / "offers" / name, "state", str) if name.endswith(".json") else ""
                    found += [name.removesuffix(".json")] if state in _OPEN else []
        return found

    def _bindings(self, owner: str) -> Iterator[Path]:
        """Yield the workspaces of an identity; of all identities, or of many, if ``owner`` is none."""
        known = self.identities()
        for identity in [owner] if owner in known else known[:_MOST_IDENTITIES]:
            protocols = self._home.identities / identity / "protocols"
            for protocol in _entries(protocols):
                for instance in _entries(protocols / protocol):
                    yield protocols / protocol / instance


def installed_protocols() -> list[str]:
    """Return the protocols that are installed here. Reads the files that ``importlib.metadata`` reads, 20 ms faster."""
    found: dict[str, None] = {}
    for folder in dict.fromkeys(sys.path):
        for name in _entries(Path(folder or ".")):
            if name.endswith((".dist-info", ".egg-info")):
                found.update(dict.fromkeys(_entry_points(Path(folder) / name / "entry_points.txt")))
    return list(found)


def setting_keys() -> list[str]:
    """Return the keys of settings."""
    from fastn_p2p_actors.daemon_settings.catalogue import SETTINGS

    return [each.key for each in SETTINGS]


def pairing_words(beginning: str) -> list[str]:
    """Return the words of a pairing that begin so; none without a beginning, because all of them are 2,048."""
    from fastn_p2p_actors.pairing.code import matching_words

    return matching_words(beginning) if beginning else []


def _entry_points(file: Path) -> Iterator[str]:
    try:
        text = file.read_text()
    except (OSError, ValueError):
        return
    for line in text.partition(_SECTION)[2].splitlines()[1:]:
        if line.startswith("["):
            return
        if "=" in line:
            yield line.partition("=")[0].strip()


def _entries(directory: Path) -> list[str]:
    """Return the visible names in a directory; none if it cannot be read."""
    try:
        return [each.name for each in os.scandir(directory) if not each.name.startswith(".")]
    except OSError:
        return []


def _table(file: Path, key: str, kind: type[T]) -> T:
    """Return the value of a key in a JSON file; an empty one if there is none of this type."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])[key]
        return found if isinstance(found, kind) else kind()
    except (OSError, msgspec.MsgspecError, ValueError, KeyError):
        return kind()
