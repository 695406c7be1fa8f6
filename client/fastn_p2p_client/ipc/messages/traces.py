"""Control messages about the path to a peer: ``ping`` and ``explain``."""

from __future__ import annotations

import msgspec

from .base import Message, Record

__all__ = [
    "ExplainPeer",
    "PeerTrace",
    "PeerTraceReply",
    "PingPeer",
    "PingReply",
    "TraceAttempt",
    "TraceRecord",
    "TraceSource",
]


class TraceRecord(Record, frozen=True):
    """A signed record of a peer's endpoints, as one source has it."""

    signed_ms: int
    """Unix time in milliseconds at which the peer signed it; 0 if the record cannot be read."""
    endpoints: int
    """Number of endpoints that it names."""
    problem: str = ""
    """Reason for which it is not used; empty if it is verified and in date."""


class TraceSource(Record, frozen=True):
    """A place where this daemon looked for records of a peer, and the records that it has."""

    name: str
    """``ticket``, ``address book``, ``this machine``, ``LAN``, or the URL of a directory; ``directories`` if there is
    none."""
    records: list[TraceRecord]
    problem: str = ""
    """Reason for which it did not answer, or was not asked; empty if it did."""
    ms: int | None = None
    """Milliseconds until it had answered; None of a source that is read at once, and while there is no answer."""


class TraceAttempt(Record, frozen=True):
    """Attempt to connect to an endpoint of a peer."""

    endpoint: str
    """Id of the endpoint, 64 hex digits."""
    addresses: list[str]
    relays: list[str]
    ms: int
    """Milliseconds until its result, or until now if there is none yet."""
    result: str
    """``connected``, ``not needed`` (another one was faster), ``no answer yet``, or the reason why it failed."""


class PeerTrace(Record, frozen=True):
    """Each step from the name of a peer to the process that serves it."""

    peer: str
    """The peer as it was named; a ticket is shown as its ID52."""
    kind: str
    """Kind of that name: ``petname``, ``ID52``, ``ticket``, ``own identity``, or ``unknown``."""
    id52: str = ""
    """Empty if the name is unknown."""
    petname: str = ""
    """Name in the address book; empty if it is not there."""
    sources: list[TraceSource] = msgspec.field(default_factory=list)
    was_connected: bool = False
    """True if there was a connection already."""
    attempts: list[TraceAttempt] = msgspec.field(default_factory=list)
    connected: bool = False
    """True if there is a connection over which the identity is proven, or if it is an identity of this daemon."""
    endpoint: str = ""
    """Id of the peer daemon's endpoint, 64 hex digits; empty without a connection."""
    path: str = ""
    """Path of the connection, as in ``ConnectionStatus``, or ``local``; empty without a connection."""
    address: str = ""
    rtt_ms: float | None = None
    """Milliseconds of one ping over the connection; None if it was not answered."""
    identity: str = ""
    """Local identity that would call; empty if there is none."""
    protocol: str = ""
    instance: str = ""
    access: str = ""
    """``allowed``, ``denied``, ``not offered`` or ``unknown``."""
    access_reason: str = ""
    """Reason of an access that is not ``allowed``."""
    served_by: str = ""
    """Words about the process that serves the protocol; empty if that is not known."""
    problem: str = ""
    """The first step that fails, in words; empty if a call can be made."""
    advice: str = ""
    """The one thing to do about the problem."""


class PingReply(Message, frozen=True, tag=54):
    """The peer daemon has answered a ping."""

    id52: str
    """ID52 of the peer."""
    path: str
    """``local``, ``direct``, ``relayed`` or ``unknown``."""
    address: str
    """IP address and port of the peer daemon, or the URL of the relay; empty if unknown or local."""
    rtt_ms: float
    """Milliseconds between the ping and its answer."""


class PeerTraceReply(Message, frozen=True, tag=55):
    trace: PeerTrace


class PingPeer(Message, frozen=True, tag=38):
    """Connect to the daemon of a peer, if it is not connected, and measure one round trip. No protocol takes part."""

    reply_type = PingReply
    identity: str
    """Name of a local identity that must be online; empty if it does not matter."""
    peer: str
    """A petname, an ID52, a ticket, a URI, or the name of an identity of this daemon."""
    timeout_ms: int


class ExplainPeer(Message, frozen=True, tag=39):
    """Follow each step from the name of a peer to the process that serves it, also if one of them fails.

    Asks every source for the peer's records, and connects. With a protocol, asks the peer daemon whether its access
    list admits the identity; no handler runs for that.
    """

    reply_type = PeerTraceReply
    identity: str
    """Name of the identity that would call; empty for the only one online."""
    peer: str
    """A petname, an ID52, a ticket, a URI, or the name of an identity of this daemon."""
    protocol: str
    """Protocol that would be called; empty if only the way to the peer matters."""
    instance: str
    timeout_ms: int
    """Time for the sources, for connecting, and for the peer's answer; 10 seconds are enough for most peers."""
