"""Control messages about replicas: other daemons that serve an identity with delegations of its owner's vault."""

from __future__ import annotations

import msgspec

from .base import Ack, Message, Record
from .identities import IdentityReply

__all__ = [
    "AddReplica",
    "AdoptReplicas",
    "HomeInfo",
    "HomeReply",
    "JoinIdentity",
    "ListReplicas",
    "PromoteReplica",
    "RemoveJoined",
    "RemoveReplica",
    "ReplicaInfo",
    "ReplicaList",
]


class ReplicaInfo(Record, frozen=True):
    """A replica of an own identity; or, if ``joined``, the owner's daemon of an identity that is a replica here."""

    identity: str
    name: str
    """Name of the other daemon."""
    endpoint: str
    """Id of its endpoint, 64 hex digits; empty for an owner's."""
    state: str
    """``online``, ``offline``: it does not serve the identity; ``away``: not heard of lately; ``new``: not heard of
    yet; ``removed``: by the owner, and its last delegation may still be valid; ``awaited``: adopted here, and not
    heard of since; ``elsewhere``: another daemon with the key renews it."""
    joined: bool = False
    seen: int = 0
    """Unix time at which the two daemons have talked last; 0 for never."""
    until: int = 0
    """Unix time at which the replica's delegation ends; 0 if it has none."""
    problem: str = ""
    """Reason for which the owner's daemon has not answered, or the replica is not renewed here; else empty."""
    homes: list[str] = msgspec.field(default_factory=list)
    """Bindings whose home is the other daemon, as ``PROTOCOL/INSTANCE``."""


class ReplicaList(Message, frozen=True, tag=106):
    replicas: list[ReplicaInfo]
    here: list[str] = msgspec.field(default_factory=list)
    """Bindings of own identities at several daemons whose home is this one, as ``IDENTITY/PROTOCOL/INSTANCE``."""
    standby: dict[str, str] = msgspec.field(default_factory=dict)
    """The others here that keep state, with the name of the daemon that is the home, in words."""


class HomeInfo(Record, frozen=True):
    """Home of a binding that keeps state."""

    identity: str
    protocol: str
    instance: str
    daemon: str
    """Name of the replica that is the home now; empty for the owner's daemon."""
    term: int
    """Number of this choice: a higher one replaces it."""


class HomeReply(Message, frozen=True, tag=105):
    home: HomeInfo


class AddReplica(Message, frozen=True, tag=100):
    """Let the vault sign delegations of an identity for another daemon from now on. May be repeated."""

    reply_type = ReplicaList
    identity: str
    endpoint: str
    """Id of its endpoint, 64 hex digits."""
    name: str
    """Name of that daemon; a number is added if another one has it."""


class RemoveReplica(Message, frozen=True, tag=101):
    """Sign no more delegations for a replica. It serves until its last one ends, at most a day."""

    reply_type = ReplicaList
    identity: str
    name: str
    """Name of the replica, or the id of its endpoint."""
    now: bool = False
    """Also end its last delegation, at every peer that learns of it."""


class PromoteReplica(Message, frozen=True, tag=115):
    """Make another daemon of an own identity the home of a binding that keeps state. May be repeated."""

    reply_type = HomeReply
    identity: str
    protocol: str
    instance: str = "default"
    name: str = ""
    """Name of the replica, or the id of its endpoint; empty for this daemon."""


class AdoptReplicas(Message, frozen=True, tag=113):
    """Renew the replicas of an identity here, in place of another daemon with its key. May be repeated.

    Answered once all replicas have reported, or after 10 s: they are adopted when they are reached.
    """

    reply_type = ReplicaList
    identity: str
    without: tuple[str, ...] = ()
    """Names or endpoint ids of replicas to remove at once, as ``RemoveReplica`` does."""


class ListReplicas(Message, frozen=True, tag=102):
    """List the replicas of own identities, and the identities that are replicas here."""

    reply_type = ReplicaList
    identity: str = ""
    """Name of the only identity; empty for all."""


class JoinIdentity(Message, frozen=True, tag=103):
    """Serve an identity of another daemon here, as soon as that sends a delegation. Answered by ``IdentityReply``."""

    reply_type = IdentityReply
    name: str
    """Name of the identity here."""
    ticket: str
    """Ticket of the identity, by which its owner's daemon is reached."""
    owner: str
    """Name of the owner's daemon."""


class RemoveJoined(Message, frozen=True, tag=104):
    """End the replica of an identity here: remove it with its bindings. Its owner keeps it."""

    reply_type = Ack
    name: str
