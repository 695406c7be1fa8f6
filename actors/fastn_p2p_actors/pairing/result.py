"""Result of a pairing."""

from __future__ import annotations

from dataclasses import dataclass


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
