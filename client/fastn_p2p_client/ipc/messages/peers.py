"""Control messages about the address book."""

from __future__ import annotations

from .base import Ack, Message, Record

__all__ = [
    "AcceptSuccessor",
    "AddPeer",
    "ListPeers",
    "PeerInfo",
    "PeerList",
    "PeerReply",
    "RemovePeer",
]


class PeerInfo(Record, frozen=True):
    """A peer in the address book."""

    name: str
    id52: str
    endpoints: int
    """Number of endpoints in its record; 0 if only the key is known."""
    added: str
    """Time in UTC, ISO 8601."""
    reach: str = ""
    """``connected``; ``unreachable`` after a failed attempt to connect; empty if there was no attempt."""
    seen_ms: int = 0
    """Unix time in milliseconds at which it was last connected; 0 if never since the daemon started."""
    revoked: str = ""
    """Time at which it was revoked, in UTC, ISO 8601; empty if it was not."""
    successor: str = ""
    """ID52 of the identity that takes its place; empty without one."""
    invited: bool = False
    """True if it was let in by an invitation: access lists that name ``peers`` do not admit it."""


class PeerReply(Message, frozen=True, tag=44):
    peer: PeerInfo
    renamed_from: str = ""
    """Petname that the same peer had before, if it had another one."""
    let_in_to: tuple[str, ...] = ()
    """Bindings of the peer, ``PROTOCOL/INSTANCE``, that an invitation has opened to an own identity."""


class PeerList(Message, frozen=True, tag=45):
    peers: list[PeerInfo]
    more: bool = False
    """True if there are more peers after the last one."""


class AddPeer(Message, frozen=True, tag=19):
    """Add a peer to the address book. ``peer`` is a ticket or an ID52.

    A ticket that is an invitation is redeemed first: the peer must be reachable. If it is not, or refuses, nothing has
    changed, and the same request can be sent again. Allow 30 seconds.
    """

    reply_type = PeerReply
    peer: str
    name: str
    paired_with: str = ""
    """Own identity that was paired with the peer, for the audit log; empty if the peer is added without a pairing."""
    identity: str = ""
    """Own identity that an invitation lets in; empty for the only one online."""


class ListPeers(Message, frozen=True, tag=20):
    """List one page of the address book, sorted by name."""

    reply_type = PeerList
    after: str = ""
    """Last name of the previous page; empty for the first page."""
    limit: int = 0
    """Maximum number of entries in the reply; 0 stands for the daemon's maximum (20,000)."""


class RemovePeer(Message, frozen=True, tag=21):
    """Remove a peer from the address book."""

    reply_type = Ack
    name: str


class AcceptSuccessor(Message, frozen=True, tag=121):
    """Replace the key of a revoked peer by that of its successor. Petname, groups and blocking stay."""

    reply_type = PeerReply
    name: str
    """Petname or ID52 of the revoked peer."""
