"""``Peer``: the identity at the other end of a call or session, and the path to it."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from .ipc.messages import UNKNOWN, DeliverCall, DeliverSession, SessionOpened
from .keys import PublicKey


class Peer(msgspec.Struct, frozen=True):
    """The identity at the other end, and the path to it. Two peers are equal if key and name are, on any path."""

    key: PublicKey
    """Public key of the identity. Verified: the identity has authorized the peer daemon by a signed delegation."""
    name: str | None
    """Petname in this daemon's address book; None if the peer is not in it."""
    path: str = UNKNOWN
    """``local`` if the peer uses the same daemon; ``direct`` or ``relayed`` for a peer daemon; ``unknown`` before the
    path is known."""
    address: str = ""
    """Address of the peer daemon (``ip:port``), or URL of the relay; empty if ``local``."""
    rtt_ms: int | None = None
    """Milliseconds of round-trip time as last measured, about a second ago; None if it is not known."""

    def __eq__(self, other: object) -> bool:
        return (self.key, self.name) == (other.key, other.name) if isinstance(other, Peer) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.key, self.name))

    def __str__(self) -> str:
        return self.name or self.key.id52

    @property
    def is_local(self) -> bool:
        """True if the peer uses the same daemon, so that no data leaves this machine."""
        return self.path == "local"


@lru_cache(maxsize=1024)
def from_fields(key: bytes, petname: str, path: str = UNKNOWN, address: str = "", rtt_ms: int | None = None) -> Peer:
    """Return the peer of a key and path.

    Args:
        key: 32 bytes.
        petname: empty for a peer that is not in the address book.

    Raises:
        InvalidKey: the bytes are not a public key.
    """
    return Peer(PublicKey(key), petname or None, path, address, rtt_ms)


def from_message(message: DeliverCall | DeliverSession | SessionOpened) -> Peer:
    """Return the peer that a message of the network process names. Raises InvalidKey."""
    return from_fields(message.peer, message.petname, message.path, message.address, message.rtt_ms)
