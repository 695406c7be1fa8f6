"""Result of a pairing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PairedPeer:
    """Peer that is in the address book now, on both sides."""

    name: str
    """Its name in this address book."""
    id52: str
    fingerprint: str
    """Nine digits that both owners see."""
    renamed_from: str = ""
    """Its name before, if it was in the address book under another one."""
    updated: bool = False
    """True if it was in the address book already."""
