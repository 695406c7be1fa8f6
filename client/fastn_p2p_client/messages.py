"""The client protocol: every message that crosses a local socket between a program and the daemon.

A message is three frames, ``[id, header, payload]``, on ZeroMQ over a Unix socket (programs hold DEALERs). Several
messages may come as one ZeroMQ message: its frames are then those of the first, of the second, and so on.

* ``id`` is chosen by whoever asks, at most 16 bytes, and comes back with the answer. What the daemon asks of a program
  that serves has ids of 8 bytes with the highest bit of the first one set, and such ids are the daemon's alone;
* ``header`` is one of the structs below as a msgpack array whose first item is the integer tag;
* ``payload`` is opaque bytes, empty where a message has none. Whoever calls encodes it, whoever handles
  decodes it, nobody in between looks inside.

Two conversations share the format. On ``control.sock`` (the gateway) a program says ``Hello`` first and is told
where the data plane is; on the data plane (the network) it makes calls, and whoever serves takes them.
Times in messages are milliseconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from .errors import P2PError, error_from

__all__ = [
    "UNDECODABLE",
    "UNKNOWN",
    "AddPeer",
    "AddProtocol",
    "Announce",
    "ApplicationFailure",
    "AwaitPeer",
    "BindingInfo",
    "BindingList",
    "BindingReply",
    "BindingStatus",
    "Call",
    "Cancel",
    "CheckProtocol",
    "Chunk",
    "Conclude",
    "ConnectionStatus",
    "Control",
    "ControlReply",
    "CreateIdentity",
    "Credit",
    "Data",
    "DataReply",
    "DeleteIdentity",
    "Deliver",
    "Done",
    "Eof",
    "Failure",
    "GetBinding",
    "GetStatus",
    "GetTicket",
    "Granted",
    "Hello",
    "IdentityInfo",
    "IdentityList",
    "IdentityReply",
    "IdentityStatus",
    "ListIdentities",
    "ListPeers",
    "ListProtocols",
    "Long",
    "Message",
    "Offer",
    "Open",
    "Opened",
    "PeerInfo",
    "PeerList",
    "PeerReply",
    "ProcessStatus",
    "ProtocolInfo",
    "ProtocolList",
    "Record",
    "Register",
    "ReloadProtocol",
    "RemovePeer",
    "RemoveProtocol",
    "Reply",
    "Reset",
    "Serve",
    "SessionPart",
    "SetOnline",
    "StartProtocol",
    "StateReply",
    "Status",
    "StatusReply",
    "Stop",
    "StopProtocol",
    "TicketText",
    "Unknown",
    "WatchBindings",
    "Welcome",
    "Withdraw",
    "encode",
]


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A struct that travels as an array with its tag first."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A struct inside a message that travels as a map: scripts read these, and they grow."""


UNKNOWN: Final = "unknown"
"""The path to a peer of which nobody has said anything."""


# ── both conversations ───────────────────────────────────────────────────────────────────────────


class Failure(Message, frozen=True, tag=0):
    """The request with this id ended with an error of the system: see ``errors.CODES``."""

    code: str
    fields: dict[str, Any] = {}

    @classmethod
    def of(cls, error: P2PError) -> Failure:
        return cls(error.code, error.fields())

    def error(self) -> P2PError:
        return error_from(self.code, self.fields)


class Cancel(Message, frozen=True, tag=1):
    """Whoever asked under this id no longer wants the answer. There is no reply."""


class Done(Message, frozen=True, tag=2):
    """It is done; there is nothing to tell."""


class Long(Message, frozen=True, tag=3):
    """The answer is too long for a header: it is the payload."""


# ── control: program → gateway ───────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True, tag=10):
    """First message on ``control.sock``; answered by ``Welcome``, or a ``Failure`` with ``version-mismatch``."""

    version: int
    program: str = ""
    """What the program calls itself, for ``status``; at most 64 characters."""


class CreateIdentity(Message, frozen=True, tag=11):
    """Answered by ``IdentityReply``."""

    name: str


class DeleteIdentity(Message, frozen=True, tag=12):
    """Takes the identity offline, then deletes its key and its directory. Answered by ``Done``."""

    name: str


class ListIdentities(Message, frozen=True, tag=13):
    """Answered by ``IdentityList``."""


class SetOnline(Message, frozen=True, tag=14):
    """Brings the identity online, answered once its process serves, or offline. Answered by ``IdentityReply``."""

    name: str
    online: bool


class AddProtocol(Message, frozen=True, tag=15):
    """Binds a protocol to an identity. The payload is the config as JSON (empty: ``{}``). Answered by ``Done``.

    ``allow`` says who may use it: ``"everyone"``, ``"peers"`` (whoever is in the address book), an ID52 or a petname;
    empty leaves it to the protocol's own declaration (public, or else ``"peers"``).
    """

    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    program: bool = False
    """A program serves it: the daemon keeps its config and workspace, and does not look for its code."""


class RemoveProtocol(Message, frozen=True, tag=16):
    """Answered by ``Done``. The binding's workspace directory goes too."""

    identity: str
    protocol: str
    instance: str


class GetStatus(Message, frozen=True, tag=17):
    """Answered by ``StatusReply``."""


class GetTicket(Message, frozen=True, tag=18):
    """Answered by ``TicketText``. The identity must be online; empty stands for the only one."""

    identity: str


class AddPeer(Message, frozen=True, tag=19):
    """Puts a peer into the address book. ``peer`` is a ticket or an ID52. Answered by ``PeerReply``."""

    peer: str
    name: str


class ListPeers(Message, frozen=True, tag=20):
    """Answered by ``PeerList``."""


class RemovePeer(Message, frozen=True, tag=21):
    """Answered by ``Done``."""

    name: str


class Register(Message, frozen=True, tag=22):
    """Asks that this program may serve one protocol instance of an identity. Answered by ``Granted``."""

    identity: str
    protocol: str
    instance: str


class CheckProtocol(Message, frozen=True, tag=23):
    """Reads the config of a binding from its file and checks it. Answered by ``StateReply`` when it is good."""

    identity: str
    protocol: str
    instance: str


class ReloadProtocol(Message, frozen=True, tag=24):
    """Reads the config and the access list of a binding from its file, checks them, and has the binding go on with
    them. When they are not good, it goes on with those that it has. Answered by ``StateReply``."""

    identity: str
    protocol: str
    instance: str


class StartProtocol(Message, frozen=True, tag=25):
    """Serves a binding again that was stopped or has failed. Answered by ``StateReply``."""

    identity: str
    protocol: str
    instance: str


class StopProtocol(Message, frozen=True, tag=26):
    """Serves a binding no more, also after restarts, until ``StartProtocol``. Answered by ``StateReply``."""

    identity: str
    protocol: str
    instance: str


class ListProtocols(Message, frozen=True, tag=27):
    """Answered by ``ProtocolList``."""


class WatchBindings(Message, frozen=True, tag=28):
    """What programs are to serve of a protocol, for all identities. Answered by ``BindingList``: at once when that is
    something else than was ``seen``, otherwise when it has become something else, or after a while.

    Whoever is going to ask again says by that that it serves what it was told, and no more.
    """

    protocol: str
    watcher: bytes
    """Random, 8 bytes: the same in all that one program asks about one protocol."""
    seen: bytes = b""
    """The ``revision`` of the answer before, empty the first time."""
    failed: dict[str, str] = {}
    """What of it this program cannot serve, for ``status``: ``identity/instance`` → why."""


class GetBinding(Message, frozen=True, tag=29):
    """One of those. Answered by ``BindingReply``."""

    identity: str
    protocol: str
    instance: str


# ── control: gateway → program ───────────────────────────────────────────────────────────────────


class Welcome(Message, frozen=True, tag=40):
    """The daemon speaks this version; calls go to the socket at ``data_route`` (a path)."""

    version: int
    daemon: str
    """Version of the daemon's distribution."""
    data_route: str
    max_payload: int
    max_calls: int


class IdentityInfo(Record, frozen=True):
    name: str
    id52: str
    online: bool
    """What its owner wants; ``Status`` says what is."""
    created: str
    """UTC, ISO 8601."""


class IdentityReply(Message, frozen=True, tag=41):
    identity: IdentityInfo


class IdentityList(Message, frozen=True, tag=42):
    identities: list[IdentityInfo]


class TicketText(Message, frozen=True, tag=43):
    ticket: str


class PeerInfo(Record, frozen=True):
    name: str
    id52: str
    endpoints: int
    """How many endpoints its record lists; 0 when only the key is known."""
    added: str
    """UTC, ISO 8601."""


class PeerReply(Message, frozen=True, tag=44):
    peer: PeerInfo


class PeerList(Message, frozen=True, tag=45):
    peers: list[PeerInfo]


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


class ConnectionStatus(Record, frozen=True):
    """One QUIC connection to another daemon."""

    endpoint: str
    """64 hex digits."""
    identities: list[str]
    """Petnames or ID52s that have been introduced over it."""
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


class Status(Record, frozen=True):
    """All there is to know about a daemon. ``warnings`` says what is missing when an actor is down."""

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


class StatusReply(Message, frozen=True, tag=46):
    status: Status


class Granted(Message, frozen=True, tag=47):
    """Until the daemon is started anew, whoever says ``Serve`` with this grant serves what was asked for."""

    grant: bytes
    key: bytes
    """The identity's public key, 32 bytes."""
    online: bool
    """Whether its owner has brought it online: only then does anything arrive."""
    allow: tuple[str, ...] = ()
    """Who may use it, where its owner has said so: then whoever serves has no say in it."""


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


class BindingList(Message, frozen=True, tag=51):
    """The payload is the ``BindingInfo`` of each, as a msgpack array."""

    revision: bytes


class BindingReply(Message, frozen=True, tag=52):
    """The payload is the config, as JSON."""

    key: bytes
    """The identity's public key, 32 bytes."""
    workspace: str
    """The path of a directory that is the binding's own."""
    version: bytes
    """As in ``BindingInfo``."""
    allow: tuple[str, ...] = ()
    """As in ``AddProtocol``."""


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
    config_schema: dict[str, Any] = {}
    """JSON Schema of its config."""


class ProtocolList(Message, frozen=True, tag=48):
    protocols: list[ProtocolInfo]


class StateReply(Message, frozen=True, tag=49):
    """``state`` as in ``BindingStatus``."""

    state: str


# ── data: program → network ──────────────────────────────────────────────────────────────────────


class Call(Message, frozen=True, tag=60):
    """A request. The payload is the request's msgpack. Answered by ``Reply``, ``ApplicationFailure`` or ``Failure``.

    ``identity`` is the caller's identity by name, empty for the only one online. ``peer`` is a petname, an ID52
    or a ticket. ``deadline_ms`` is the time that is left.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    """Which of the protocol's commands; empty for its request handler."""
    call_id: bytes = b""
    """Random, 16 bytes, for a call that may be sent again: whoever serves executes it once. Else empty."""
    attempt: int = 0
    """How often it has been sent before, with the same ``call_id``."""


class Reply(Message, frozen=True, tag=61):
    """The handler's answer is the payload."""


class ApplicationFailure(Message, frozen=True, tag=62):
    """The handler said no, on purpose. The payload is its data (msgpack)."""

    kind: str
    message: str = ""


class AwaitPeer(Message, frozen=True, tag=74):
    """Answered by ``Done`` once the peer can be called: at once, or when it comes online; else by ``Failure``.

    Fields as in ``Call``. Nobody waits any more once the connection has ended.
    """

    identity: str
    peer: str
    deadline_ms: int


# ── data: sessions, both ways ────────────────────────────────────────────────────────────────────


class Open(Message, frozen=True, tag=63):
    """Opens a session. The payload is its initial data (msgpack). Answered by ``Opened``, ``ApplicationFailure`` or
    ``Failure``; from ``Opened`` on, both sides send what follows, all under this id.

    ``identity`` and ``peer`` as in ``Call``; ``deadline_ms`` is for the answer. ``credit`` is how many bytes of chunks
    the sender of this message takes before it grants more.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int


class Opened(Message, frozen=True, tag=64):
    """The session stands. ``credit`` as in ``Open``, for the other direction."""

    credit: int
    peer: bytes = b""
    """The other side's verified public key, 32 bytes. Whoever serves leaves it out: the network knows."""
    petname: str = ""
    """The other side's name in the address book, or empty."""
    path: str = UNKNOWN
    address: str = ""
    rtt_ms: int | None = None
    """These three as in ``Deliver``, likewise."""


class Chunk(Message, frozen=True, tag=65):
    """The next bytes of this direction: the payload, which is within the credit."""


class Eof(Message, frozen=True, tag=66):
    """This direction is complete. Answered by ``Done`` once that has been passed on."""


class Credit(Message, frozen=True, tag=67):
    """So many more bytes may be sent in the direction towards whoever grants them."""

    size: int


class Reset(Message, frozen=True, tag=68):
    """This direction ends here, incomplete. What the code means is up to the protocol; see ``limits`` for ours."""

    code: int


class Stop(Message, frozen=True, tag=69):
    """The opposite direction is not read any more. Answered by ``Reset`` with this code unless it is complete."""

    code: int


# ── data: whoever serves → network ───────────────────────────────────────────────────────────────


class Announce(Message, frozen=True, tag=70):
    """This connection serves the identity: it is online from now, until the connection ends. Answered by ``Done``.

    ``grant`` proves that the gateway or the supervisor has allowed it.
    """

    identity: str
    grant: bytes


class Serve(Message, frozen=True, tag=71):
    """This connection takes requests for one protocol instance. Answered by ``Done``; again replaces the access list.

    ``allow``: as in ``AddProtocol``, but never empty. Several programs may serve the same; each request goes to the
    one that has the fewest in flight. A program serves whenever the identity is online, and may say so before.
    """

    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...]
    grant: bytes
    limit: int = 0
    """Requests and sessions in flight that this connection takes; 0 stands for as many as a binding may have."""


class Withdraw(Message, frozen=True, tag=72):
    """Takes back this connection's ``Serve``; calls in flight are finished. Answered by ``Done``."""

    identity: str
    protocol: str
    instance: str


class Conclude(Message, frozen=True, tag=73):
    """Takes back an ``Announce``: the identity is offline. Answered by ``Done``."""

    identity: str


class Unknown(Message, frozen=True, tag=82):
    """Answers a ``Deliver`` with an ``attempt``: whoever says it has never had the call."""


# ── data: network → whoever serves ───────────────────────────────────────────────────────────────


class Deliver(Message, frozen=True, tag=80):
    """A request for a binding of this connection; the payload is the caller's. Answer it under the same id with
    ``Reply``, ``ApplicationFailure`` or ``Failure``; ``Cancel`` under that id says nobody waits any more.
    """

    peer: bytes
    """The caller's verified public key, 32 bytes."""
    petname: str
    """The caller's name in the address book, or empty."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    call_id: bytes = b""
    attempt: int = 0
    """These three as in ``Call``. With an ``attempt`` that is not 0 it is asked for the outcome of a call that this
    connection may have had already; if it has not, it does not execute it, and answers ``Unknown``."""
    path: str = UNKNOWN
    """How the caller is connected: ``local`` to the same daemon, ``direct``, ``relayed``, or ``unknown``."""
    address: str = ""
    """Its address, or the relay's; empty where there is none."""
    rtt_ms: int | None = None
    """How long a packet takes there and back, as last known."""


class Offer(Message, frozen=True, tag=81):
    """Somebody opens a session with a binding of this connection; the payload is the initial data. Answer it under the
    same id with ``Opened``, ``ApplicationFailure`` or ``Failure``; ``Cancel`` under that id says nobody waits any more.
    """

    peer: bytes
    """The other side's verified public key, 32 bytes."""
    petname: str
    """The other side's name in the address book, or empty."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int
    """As in ``Open``."""
    path: str = UNKNOWN
    address: str = ""
    rtt_ms: int | None = None
    """These three as in ``Deliver``."""


Control: TypeAlias = (
    Hello
    | CreateIdentity
    | DeleteIdentity
    | ListIdentities
    | SetOnline
    | AddProtocol
    | RemoveProtocol
    | GetStatus
    | GetTicket
    | AddPeer
    | ListPeers
    | RemovePeer
    | Register
    | CheckProtocol
    | ReloadProtocol
    | StartProtocol
    | StopProtocol
    | ListProtocols
    | WatchBindings
    | GetBinding
    | Cancel
)
"""What a program may say to the gateway."""

ControlReply: TypeAlias = (
    Welcome
    | IdentityReply
    | IdentityList
    | TicketText
    | PeerReply
    | PeerList
    | StatusReply
    | Granted
    | ProtocolList
    | StateReply
    | BindingList
    | BindingReply
    | Done
    | Long
    | Failure
)
"""What the gateway answers."""

SessionPart: TypeAlias = Opened | Chunk | Eof | Done | Credit | Reset | Stop | Failure | ApplicationFailure | Cancel
"""What either side may say under the id of a session that has been asked for."""

Data: TypeAlias = (
    Call
    | Cancel
    | Reply
    | Unknown
    | ApplicationFailure
    | Failure
    | Announce
    | Serve
    | Withdraw
    | Conclude
    | AwaitPeer
    | Open
    | Opened
    | Chunk
    | Eof
    | Done
    | Credit
    | Reset
    | Stop
)
"""What a program or an identity process may say to the network."""

DataReply: TypeAlias = (
    Reply
    | ApplicationFailure
    | Failure
    | Done
    | Long
    | Deliver
    | Cancel
    | Offer
    | Opened
    | Chunk
    | Eof
    | Credit
    | Reset
    | Stop
)
"""What the network says to them."""

encode: Final = msgspec.msgpack.Encoder().encode

UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding a stranger's bytes can raise: msgspec lets through what broken UTF-8 and deep nesting raise."""
