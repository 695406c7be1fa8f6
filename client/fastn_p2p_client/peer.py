"""The other side of a call or a session, as whoever serves sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from .ipc.messages import (
    UNKNOWN,
    DeliverCall,
    DeliverSession,
    SessionOpened,
)
from .keys import PublicKey

__all__ = ["Peer", "from_fields", "from_message"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, and how they are connected. Two are equal when they are the same somebody, wherever they are."""

    key: PublicKey
    """Verified: whoever asks has proved that this identity speaks through them."""
    name: str | None
    """Their petname in this daemon's address book, if they are in it."""
    path: str = field(default=UNKNOWN, compare=False)
    """``local`` when they use the same daemon, ``direct`` or ``relayed`` when their daemon is elsewhere, ``unknown``
    while nobody knows."""
    address: str = field(default="", compare=False)
    """Where their daemon is (``ip:port``), or the relay in between; empty when ``local``."""
    rtt_ms: int | None = field(default=None, compare=False)
    """Milliseconds there and back, as last known: a second ago or so."""

    def __str__(self) -> str:
        return self.name or self.key.id52

    @property
    def is_local(self) -> bool:
        """Whether they use the same daemon, so that nothing has left this machine."""
        return self.path == "local"


@lru_cache(maxsize=1024)
def from_fields(key: bytes, petname: str, path: str = UNKNOWN, address: str = "", rtt_ms: int | None = None) -> Peer:
    """The peer behind 32 bytes, a petname, which is empty for someone who is not in the address book, and what is
    known of the connection.

    Raises:
        InvalidKey: the bytes are no public key.
    """
    return Peer(PublicKey(key), petname or None, path, address, rtt_ms)


def from_message(message: DeliverCall | DeliverSession | SessionOpened) -> Peer:
    """The one that a message of the network names. Raises like ``from_fields``."""
    return from_fields(message.peer, message.petname, message.path, message.address, message.rtt_ms)
