"""Control messages about the state of the daemon."""

from __future__ import annotations

import msgspec

from .base import Message, Record
from .identities import IdentityLimits
from .peers import PeerInfo
from .replicas import ReplicaInfo

__all__ = [
    "BindingStatus",
    "ConnectionStatus",
    "GetStatus",
    "IdentityStatus",
    "ProcessStatus",
    "PublicationStatus",
    "Status",
    "StatusReply",
    "VaultInfo",
]


class PublicationStatus(Record, frozen=True):
    """State of an identity's record at one place."""

    place: str
    """``this machine``, or the URL of a directory."""
    age_ms: int | None
    """Milliseconds since the place took the record last; None if it never did."""
    problem: str = ""
    """Reason for which the place has not taken the newest record; empty if it has."""


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
    """``serving``, ``degraded: …`` (it serves, and cannot do its work), ``starting``, ``stopped``, ``waiting for a
    program``, ``failed: …``, ``not serving`` or ``offline``."""
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
    claims: str = ""
    """URL of the store in which its retried calls are claimed, if its owner has given one."""


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
    asleep: bool = False
    """True if it is online without a process: the next request wakes it."""
    idle: int = 0
    """Seconds without use after which it falls asleep; 0 for never."""
    replicas: list[ReplicaInfo] = msgspec.field(default_factory=list)
    """Other daemons that serve it too; of a replica, the owner's daemon."""
    owner: str = ""
    """Name of the daemon that has its key, if this one is a replica; empty if the key is here."""


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
    invitations: int = 0
    """Number of invitations that can be redeemed."""
    online_total: int = 0
    """Number of identities that can be called."""
    asleep_total: int = 0
    """Number of them that are asleep."""


class StatusReply(Message, frozen=True, tag=46):
    status: Status


class GetStatus(Message, frozen=True, tag=17):
    """Get the state of the daemon."""

    reply_type = StatusReply
    limit: int = 0
    """Maximum number of identities, peers, connections and processes in the reply, each; 0 stands for 1,000."""
