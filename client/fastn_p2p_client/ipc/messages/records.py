"""Records: parts of control replies. They travel as maps, because scripts read them and later versions add fields."""

from __future__ import annotations

from typing import Any

import msgspec

from .base import Record

__all__ = [
    "AccessEntry",
    "BindingAccess",
    "BindingInfo",
    "BindingStatus",
    "BlockedInfo",
    "ConnectionStatus",
    "GroupInfo",
    "IdentityInfo",
    "IdentityLimits",
    "IdentityStatus",
    "InvitationInfo",
    "InvitedPeer",
    "KnockInfo",
    "PeerInfo",
    "PeerTrace",
    "ProcessStatus",
    "ProtocolInfo",
    "PublicationStatus",
    "Status",
    "TraceAttempt",
    "TraceRecord",
    "TraceSource",
    "VaultInfo",
    "WantedBinding",
]


class IdentityLimits(Record, frozen=True):
    """Resource limits of one identity's processes. None stands for the daemon's default, and 0 for no limit."""

    memory: int | None = None
    """Bytes of private memory of each process."""
    processes: int | None = None
    """Number of running processes that protocol code has started."""
    file_size: int | None = None
    """Bytes of a file that a process writes."""
    open_files: int | None = None
    """Number of open descriptors of each process."""


class IdentityInfo(Record, frozen=True):
    """An identity as its owner has set it up."""

    name: str
    id52: str
    online: bool
    """True if the owner has brought it online. ``IdentityStatus`` has the actual state."""
    created: str
    """Time in UTC, ISO 8601."""
    limits: IdentityLimits = IdentityLimits()
    listed: bool = True
    """False if its record is not published to directories and the LAN."""
    revoked: str = ""
    """Time at which it was revoked, in UTC, ISO 8601; empty if it was not."""
    successor: str = ""
    """ID52 of the identity that takes its place; empty without one."""


class PublicationStatus(Record, frozen=True):
    """State of an identity's record at one place."""

    place: str
    """``this machine``, or the URL of a directory."""
    age_ms: int | None
    """Milliseconds since the place took the record last; None if it never did."""
    problem: str = ""
    """Reason for which the place has not taken the newest record; empty if it has."""


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


class WantedBinding(Record, frozen=True):
    """A binding that a stranger was refused."""

    identity: str
    """Name of the local identity."""
    protocol: str
    """Empty if an invitation was refused."""
    instance: str
    count: int
    """Number of refusals."""


class KnockInfo(Record, frozen=True):
    """A stranger that an access list has refused, and that the owner has neither accepted nor blocked."""

    id52: str
    endpoint: str
    """Id of the endpoint through which it spoke first, 64 hex digits."""
    first_ms: int
    """Unix time in milliseconds of the first refusal."""
    last_ms: int
    count: int
    """Number of refusals."""
    wanted: list[WantedBinding]
    """The last one wanted first, at most 8."""


class BlockedInfo(Record, frozen=True):
    """An identity that the owner has blocked."""

    id52: str
    name: str
    """Petname of the identity, or the one from before it was blocked; empty if it had none."""
    since_ms: int
    """Unix time in milliseconds."""


class GroupInfo(Record, frozen=True):
    """A group of peers."""

    name: str
    members: list[str]
    """Petnames; ID52s of members that are not in the address book."""


class InvitedPeer(Record, frozen=True):
    """A bearer of an invitation, which was let in."""

    name: str
    """Petname; empty if it is not in the address book any more."""
    id52: str
    at_ms: int
    """Unix time in milliseconds at which it was let in."""
    removed: bool = False
    """True if the owner has taken its permission back."""


class InvitationInfo(Record, frozen=True):
    """An invitation that this daemon has made."""

    id: str
    identity: str
    """Name of the identity that invites."""
    bindings: list[str]
    """Bindings that it opens: ``PROTOCOL/INSTANCE``."""
    state: str
    """``open``, ``used-up``, ``expired`` or ``revoked``."""
    uses: int
    """Number of bearers that it may let in."""
    bearers: list[InvitedPeer]
    """Bearers that it has let in, also if their permission was taken back."""
    created_ms: int
    """Unix time in milliseconds."""
    expires_ms: int
    name: str = ""
    """Petname that its bearer gets; empty if the bearer's owner chooses it."""


class AccessEntry(Record, frozen=True):
    """An identity, or a set of them, that a binding admits."""

    who: str
    """``everyone``, ``peers``, a petname, or an ID52."""
    why: str
    """Entry of the access list that admits it: ``everyone``, ``peers``, ``group:NAME``, a petname, or an ID52;
    ``invitation:ID`` if an invitation does. Empty if nothing does."""
    id52: str = ""
    """Empty for ``everyone`` and ``peers``."""
    count: int = 1
    """Number of identities; 0 stands for any number."""
    problem: str = ""
    """Reason why the entry admits nobody, or why the identity is not admitted; empty if it is admitted."""


class BindingAccess(Record, frozen=True):
    """Identities that may use a binding."""

    identity: str
    protocol: str
    instance: str
    allow: list[str]
    """Access list that is in effect; empty if the protocol decides and is not loaded."""
    admits: list[AccessEntry]
    """Entry for each identity. With ``GetAccess.peer``, the only entry is about that peer."""
    permissions: tuple[str, ...] = ()
    """Files and sockets outside of its workspace that its code may use, as lines of ``Permissions``."""


class ProcessStatus(Record, frozen=True):
    """A process of the daemon."""

    name: str
    pid: int
    state: str
    """``starting``, ``ready``, ``backoff``, ``stopping`` or ``failed``."""
    uptime_ms: int
    restarts: int
    memory: int
    """Bytes of proportional set size."""
    cpu_ms: int
    sandbox: str = ""
    """``closed``, ``open: …`` with what the kernel does not confine and why, or empty: the process has none."""


class BindingStatus(Record, frozen=True):
    """State of a binding. The counters start with the network process."""

    protocol: str
    instance: str
    access: list[str]
    state: str
    """``serving``, ``starting``, ``stopped``, ``waiting for a program``, ``failed: …``, ``not serving`` or
    ``offline``."""
    calls: int = 0
    errors: int = 0
    in_flight: int = 0
    opened: int = 0
    """Number of sessions that were opened."""
    sessions: int = 0
    """Number of open sessions."""
    programs: int = 0
    """Number of programs that serve it; 0 if the daemon hosts it."""
    p50_ms: float | None = None
    p99_ms: float | None = None


class IdentityStatus(Record, frozen=True):
    """The actual state of an identity."""

    name: str
    id52: str
    online: bool
    """True if it is registered with the network process and can be called."""
    wanted: bool
    """True if the owner has brought it online."""
    bindings: list[BindingStatus]
    delegation_expires_ms: int | None = None
    """Milliseconds for which its delegation is still valid."""
    limits: IdentityLimits = IdentityLimits()
    listed: bool = True
    """False if its record is not published to directories and the LAN."""
    publications: list[PublicationStatus] = msgspec.field(default_factory=list)
    """Places where its record is published."""
    revoked: str = ""
    """Time at which it was revoked, in UTC, ISO 8601; empty if it was not."""
    successor: str = ""
    """ID52 of the identity that takes its place; empty without one."""


class ConnectionStatus(Record, frozen=True):
    """QUIC connection to a peer daemon."""

    endpoint: str
    """Id of the endpoint, 64 hex digits."""
    identities: list[str]
    """Petnames or ID52s of identities at the other end; if there are many, a part of them, known peers first."""
    path: str
    """``direct``, ``relayed`` or ``unknown``."""
    address: str
    rtt_ms: int | None
    outgoing: bool
    streams: int
    in_flight: int
    sent: int
    received: int
    age_ms: int
    identities_total: int = 0
    """Number of identities at the other end."""


class VaultInfo(Record, frozen=True):
    """State of the vault's keys."""

    encrypted: bool
    """True if the keys on disk are encrypted with a passphrase."""
    locked: bool
    """True if they cannot be used until the owner unlocks the vault."""
    locks_at: int = 0
    """Unix time at which the vault locks itself; 0 for never."""


class Status(Record, frozen=True):
    """State of a daemon. ``warnings`` names the parts that are missing because an actor does not answer.

    ``identities``, ``peers``, ``connections`` and ``processes`` have at most ``GetStatus.limit`` entries each, and the
    totals count all. ``ListIdentities`` and ``ListPeers`` return the rest.
    """

    version: str
    home: str
    network_mode: str
    endpoint: str
    addresses: list[str]
    uptime_ms: int
    clients: int
    processes: list[ProcessStatus]
    identities: list[IdentityStatus]
    peers: list[PeerInfo]
    connections: list[ConnectionStatus]
    warnings: list[str]
    identities_total: int = 0
    peers_total: int = 0
    connections_total: int = 0
    processes_total: int = 0
    relays: list[str] = msgspec.field(default_factory=list)
    """URLs of the relays in use."""
    home_relay: str = ""
    """URL of the relay that the daemon is connected to; empty without one."""
    directories: list[str] = msgspec.field(default_factory=list)
    """URLs of the directories in use."""
    lan: bool = False
    """True if peers are found on the LAN."""
    pending: int = 0
    """Number of strangers that were refused and that the owner has neither accepted nor blocked."""
    blocked: int = 0
    """Number of identities that the owner has blocked."""
    vault: VaultInfo | None = None
    """State of the vault's keys; None if the vault does not answer."""
    transport_epoch: int = 0
    """Number of the transport key: 1 for the first one of this home; 0 if it is not known."""
    transport_since: str = ""
    """Time at which that key was made: UTC, ISO 8601."""


class BindingInfo(Record, frozen=True):
    """A binding that programs serve."""

    identity: str
    instance: str
    online: bool
    """True if the owner has brought the identity online."""
    leaving: bool
    """True while it is being removed, until the programs that serve it have stopped."""
    version: bytes
    """Changes whenever the config or the access list changes."""


class ProtocolInfo(Record, frozen=True):
    """A protocol that is installed where the daemon runs."""

    name: str
    code: str
    """Place of its class, ``module:name``."""
    distribution: str
    version: str
    """Version of the distribution."""
    problem: str
    """Reason why it cannot be added to an identity; empty if it can. With a problem, the next fields are not known."""
    description: str = ""
    public: bool = False
    requests: bool = False
    """True if it takes calls."""
    streams: bool = False
    """True if it takes sessions."""
    config_schema: dict[str, Any] = msgspec.field(default_factory=dict)
    """JSON Schema of its config."""


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
