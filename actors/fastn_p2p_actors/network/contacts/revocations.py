"""Revocations that this daemon knows: its own identities' and those of known peers, in one file.

A revocation is final: none is ever removed, and the first one of an identity that has arrived stays, whatever a later
one says. So a thief of the key cannot change the successor that the owner has named, and neither can the owner change
that of the thief. Only those of known identities are kept, so that strangers cannot fill the file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import IdentityRevoked, StorageFailed

from ...credentials import Revocation, read_revocation
from ...storage.atomic_files import write_atomically
from .lazy_file import load_file

log = logging.getLogger(__name__)

MAX_REVOKED: Final = 10_000
"""Revocations of peers that are kept, some 300 bytes each. Revocations of own identities are always kept."""


class _Saved(msgspec.Struct, omit_defaults=True):
    revocation: bytes
    arrived_ms: int
    name: str = ""
    packet: bytes = b""


class _File(msgspec.Struct):
    revoked: list[_Saved] = []


class KnownRevocation(msgspec.Struct, frozen=True):
    """Revocation whose signature was verified."""

    revocation: Revocation
    blob: bytes
    """As it was signed."""
    arrived_ms: int
    """Unix time in milliseconds at which it was kept."""
    name: str = ""
    """Name of the identity, if it is this daemon's own; empty otherwise."""
    packet: bytes = b""
    """Packet for directories; only of an identity that this daemon's vault has revoked."""


class Revocations:
    """Known revocations by identity.

    Args:
        path: the file.
        now: returns Unix time.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._by_key: dict[bytes, KnownRevocation] = {}

    def load(self) -> str:
        """Read the file. Return the reason why it cannot be used; empty if it can, or if there is none."""
        consequence = ": revoked peers may count as valid until a revocation comes again"
        return load_file(self._path, _File, self._restore, consequence)

    def _restore(self, saved: _File) -> None:
        for each in saved.revoked:
            known = KnownRevocation(
                read_revocation(each.revocation), each.revocation, each.arrived_ms, each.name, each.packet
            )
            self._by_key[known.revocation.identity] = known

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[KnownRevocation]:
        """Iterate over them, in the order in which they arrived."""
        return iter(self._by_key.values())

    def get(self, key: bytes) -> KnownRevocation | None:
        """Return the revocation of an identity; None if it is not known to be revoked."""
        return self._by_key.get(key)

    def named(self, name: str) -> KnownRevocation | None:
        """Return the revocation of this daemon's own identity of a name; None if there is none."""
        return next((each for each in self._by_key.values() if each.name == name), None) if self._by_key else None

    def check(self, key: bytes, name: str = "") -> None:
        """Raise IdentityRevoked if the identity is revoked. ``name`` is its petname, for the error."""
        known = self._by_key.get(key)
        if known is not None:
            raise self.error(known, name)

    @staticmethod
    def error(known: KnownRevocation, name: str = "") -> IdentityRevoked:
        """Return the error for requests from and to a revoked identity."""
        return known.revocation.error(known.name or name)

    def add(self, revocation: Revocation, blob: bytes, name: str = "", packet: bytes = b"") -> bool:
        """Keep a revocation that was verified. Return False if it is not new.

        A later one of the same identity changes nothing. Only this daemon's own name and packet are added to the first.
        A failure to write the file becomes a line in the log: the revocation counts all the same until a restart.

        Args:
            name, packet: as in ``KnownRevocation``.
        """
        first = self._by_key.get(revocation.identity)
        if first is None:
            if not name and len(self._by_key) >= MAX_REVOKED:
                log.warning("a revocation is not kept, because there are %d already", MAX_REVOKED)
                return False
            known = KnownRevocation(revocation, blob, int(self._now() * 1000), name, packet)
        else:
            known = msgspec.structs.replace(first, name=name or first.name, packet=packet or first.packet)
            if known == first:
                return False
        self._by_key[revocation.identity] = known
        self._save()
        return first is None

    def release_name(self, name: str, key: bytes) -> None:
        """A new identity has the name of a revoked one that was deleted."""
        known = self.named(name)
        if known is not None and known.revocation.identity != key:
            self._by_key[known.revocation.identity] = msgspec.structs.replace(known, name="")
            self._save()

    def _save(self) -> None:
        saved = [_Saved(each.blob, each.arrived_ms, each.name, each.packet) for each in self]
        try:
            write_atomically(self._path, msgspec.json.encode(_File(saved)))
        except StorageFailed as error:
            log.warning("%s. A restart will forget a revocation", error)
