"""The other side of a call or a session, as whoever serves sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .keys import PublicKey

__all__ = ["Peer", "peer_from"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks."""

    key: PublicKey
    """Verified: whoever asks has proved that this identity speaks through them."""
    name: str | None
    """Their petname in this daemon's address book, if they are in it."""

    def __str__(self) -> str:
        return self.name or self.key.id52


@lru_cache(maxsize=1024)
def peer_from(key: bytes, petname: str) -> Peer:
    """The peer behind 32 bytes and a petname, which is empty for someone who is not in the address book.

    Raises:
        InvalidKey: the bytes are no public key.
    """
    return Peer(PublicKey(key), petname or None)
