"""Groups of peers: an access list names a group, and the group may change while the binding serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import GroupExists, GroupNotFound, Overloaded
from fastn_p2p_client.ipc.messages import GroupInfo
from fastn_p2p_client.keys import PublicKey, id52_of
from fastn_p2p_client.names import check_name

from ...storage.atomic_files import write_atomically
from .lazy_file import load_file

MAX_GROUPS: Final = 1000
MAX_MEMBERS: Final = 10_000
"""Peers in all groups together. The file of the groups is read at the start and written at each change."""


class _File(msgspec.Struct):
    groups: dict[str, list[str]] = {}
    """Name of a group to the ID52s of its members."""


class Groups:
    """Groups by name, kept in one file.

    A member is a key, so that it stays one when the owner renames the peer.

    Args:
        path: the file.
        on_change: called after each change.
    """

    def __init__(self, path: Path, on_change: Callable[[], object]) -> None:
        self._path = path
        self._on_change = on_change
        self._groups: dict[str, dict[bytes, None]] = {}
        self._counts: dict[bytes, int] = {}
        """Number of groups of each member, so that a stranger costs one lookup."""

    def load(self) -> str:
        """Read the file. Return the reason why it cannot be used; empty if it can, or if there is none."""
        return load_file(self._path, _File, self._restore, " and not used")

    def _restore(self, saved: _File) -> None:
        groups = {
            check_name(name, "a group"): {bytes(PublicKey(id52)): None for id52 in members}
            for name, members in saved.groups.items()
        }
        self._replace(groups)

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def has_member(self, key: bytes) -> bool:
        """Return whether the identity is in any group."""
        return key in self._counts

    def members(self, name: str) -> dict[bytes, None]:
        """Return the keys of a group's members; none if there is no such group."""
        return self._groups.get(name, {})

    def of(self, key: bytes) -> list[str]:
        """Return the names of the groups that an identity is in."""
        return [name for name, members in self._groups.items() if key in members] if key in self._counts else []

    def infos(self, name_of: Callable[[bytes], str]) -> list[GroupInfo]:
        """Return every group, sorted by name. ``name_of`` returns the petname of a key, or an empty string."""
        return [
            GroupInfo(name=name, members=[name_of(key) or id52_of(key) for key in self._groups[name]])
            for name in sorted(self._groups)
        ]

    def create(self, name: str) -> None:
        """Create an empty group. Raises InvalidName, GroupExists, Overloaded or StorageFailed."""
        check_name(name, "a group")
        if name in self._groups:
            raise GroupExists(group=name)
        if len(self._groups) >= MAX_GROUPS:
            raise Overloaded(what="groups of peers", limit=MAX_GROUPS)
        self._store({**self._groups, name: {}})

    def delete(self, name: str) -> None:
        """Delete a group. Raises GroupNotFound or StorageFailed."""
        self._check(name)
        self._store({each: members for each, members in self._groups.items() if each != name})

    def change(self, name: str, add: list[bytes], remove: list[bytes]) -> None:
        """Add and remove members. Raises GroupNotFound, Overloaded or StorageFailed."""
        self._check(name)
        members = {**self._groups[name], **dict.fromkeys(add)}
        for key in remove:
            members.pop(key, None)
        changed = {**self._groups, name: members}
        if len(members) > len(self._groups[name]) and sum(map(len, changed.values())) > MAX_MEMBERS:
            raise Overloaded(what="members of groups", limit=MAX_MEMBERS)
        self._store(changed)

    def remove_member(self, key: bytes) -> list[str]:
        """Remove an identity from every group, and return the names of those groups. Raises StorageFailed."""
        left = self.of(key)
        if left:
            self._store(
                {name: {each: None for each in members if each != key} for name, members in self._groups.items()}
            )
        return left

    def replace_member(self, key: bytes, successor: bytes) -> None:
        """Replace an identity in every group by its successor, in one step. Raises StorageFailed."""
        if self.of(key):
            self._store(
                {
                    name: dict.fromkeys(successor if each == key else each for each in members)
                    for name, members in self._groups.items()
                }
            )

    def _check(self, name: str) -> None:
        if name not in self._groups:
            raise GroupNotFound(group=name)

    def _store(self, groups: dict[str, dict[bytes, None]]) -> None:
        saved = _File({name: list(map(id52_of, members)) for name, members in groups.items()})
        write_atomically(self._path, msgspec.json.encode(saved))
        self._replace(groups)

    def _replace(self, groups: dict[str, dict[bytes, None]]) -> None:
        self._groups = groups
        self._counts = {}
        for members in groups.values():
            for key in members:
                self._counts[key] = self._counts.get(key, 0) + 1
        self._on_change()
