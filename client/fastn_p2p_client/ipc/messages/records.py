"""Records: parts of answers that travel as maps, since scripts read them and they grow."""

from __future__ import annotations

from typing import Any

import msgspec

from .base import Record

__all__ = [
    "BindingInfo",
    "BindingStatus",
    "ConnectionStatus",
    "IdentityInfo",
    "IdentityLimits",
    "IdentityStatus",
    "PeerInfo",
    "ProcessStatus",
    "ProtocolInfo",
    "Status",
]


class IdentityLimits(Record, frozen=True):
    """What the processes of one identity may use. None: as the daemon has it; 0: no limit."""

    memory: int | None = None
    """Bytes of private memory, of each process."""
    processes: int | None = None
    """Processes that protocol code has started and that run at a time."""
    file_size: int | None = None
    """Bytes in a file that is written, by each process."""
    open_files: int | None = None
    """Descriptors, of each process."""


class IdentityInfo(Record, frozen=True):
    name: str
    id52: str
    online: bool
    """What its owner wants; ``Status`` says what is."""
    created: str
    """UTC, ISO 8601."""
    limits: IdentityLimits = IdentityLimits()


class PeerInfo(Record, frozen=True):
    name: str
    id52: str
    endpoints: int
    """How many endpoints its record lists; 0 when only the key is known."""
    added: str
    """UTC, ISO 8601."""
    reach: str = ""
    """``connected``; ``unreachable`` when the last attempt to reach it failed; empty when it was not tried."""
    seen_ms: int = 0
    """When it was last connected: Unix time in milliseconds; 0 when it was not since the daemon started."""


class ProcessStatus(Record, frozen=True):
    """One process of the tree."""

    name: str
    pid: int
    state: str
    """``starting``, ``ready``, ``backoff``, ``stopping``, ``failed``."""
    uptime_ms: int
    restarts: int
    memory: int
    """Proportional set size, bytes."""
    cpu_ms: int


class BindingStatus(Record, frozen=True):
    """One protocol instance of one identity, since the network process started."""

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
    """Sessions, likewise."""
    sessions: int = 0
    """Those that stand at the moment."""
    programs: int = 0
    """How many programs serve it; 0 when the daemon hosts it."""
    p50_ms: float | None = None
    p99_ms: float | None = None


class IdentityStatus(Record, frozen=True):
    name: str
    id52: str
    online: bool
    """It is registered with the network and can be called."""
    wanted: bool
    """Its owner has brought it online."""
    bindings: list[BindingStatus]
    delegation_expires_ms: int | None = None
    """How long its delegation is still valid."""
    limits: IdentityLimits = IdentityLimits()


class ConnectionStatus(Record, frozen=True):
    """One QUIC connection to another daemon."""

    endpoint: str
    """64 hex digits."""
    identities: list[str]
    """Petnames or ID52s of identities that speak at the other end: some of them, known peers first, if there are
    many."""
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
    """How many identities speak at the other end."""


class Status(Record, frozen=True):
    """What a daemon does at the moment. ``warnings`` says what is missing when an actor is down.

    ``identities``, ``peers``, ``connections`` and ``processes`` have at most ``GetStatus.limit`` entries each; the
    totals say how many there are. ``ListIdentities`` and ``ListPeers`` give the rest.
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


class BindingInfo(Record, frozen=True):
    """A binding that programs serve."""

    identity: str
    instance: str
    online: bool
    """As in ``IdentityInfo``."""
    leaving: bool
    """It is being removed, and goes once the programs that serve it have let go."""
    version: bytes
    """Another one when the config or the access list is another one."""


class ProtocolInfo(Record, frozen=True):
    """A protocol that is installed where the daemon runs."""

    name: str
    code: str
    """Where its class is: ``module:name``."""
    distribution: str
    version: str
    """Of the distribution."""
    problem: str
    """Why no identity can be given it; empty when it can. With a problem, what follows is not known."""
    description: str = ""
    public: bool = False
    requests: bool = False
    """Whether it takes calls."""
    streams: bool = False
    """Whether it takes sessions."""
    config_schema: dict[str, Any] = msgspec.field(default_factory=dict)
    """JSON Schema of its config."""
