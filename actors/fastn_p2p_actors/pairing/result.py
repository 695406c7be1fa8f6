"""Result of a pairing."""

from __future__ import annotations

from dataclasses import dataclass

from .pairing_book import StoredPeer


@dataclass(frozen=True, kw_only=True)
class PairedPeer:
    """Peer that is in the address book now, on both sides."""

    name: str
    """Petname in this address book."""
    id52: str
    fingerprint: str
    """Nine digits that both owners see."""
    renamed_from: str = ""
    """Earlier petname, if the peer was in the address book under another one."""
    updated: bool = False
    """True if it was in the address book already."""

    @classmethod
    def of(cls, stored: StoredPeer, fingerprint: str) -> PairedPeer:
        """Return the result of a pairing that has stored this peer."""
        return cls(
            name=stored.name,
            id52=stored.id52,
            fingerprint=fingerprint,
            renamed_from=stored.renamed_from,
            updated=not stored.is_new,
        )
