"""Control: what a program asks the gateway for, and what it answers."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .base import (
    Ack,
    Cancel,
    ErrorReply,
    LongReply,
    Message,
)
from .records import IdentityInfo, PeerInfo, ProtocolInfo, Status

__all__ = [
    "AddPeer",
    "AddProtocol",
    "BindingList",
    "BindingReply",
    "CheckProtocol",
    "ControlReply",
    "ControlRequest",
    "CreateIdentity",
    "DeleteIdentity",
    "GetBinding",
    "GetStatus",
    "GetTicket",
    "Grant",
    "Hello",
    "IdentityList",
    "IdentityReply",
    "ListIdentities",
    "ListPeers",
    "ListProtocols",
    "PeerList",
    "PeerReply",
    "ProtocolList",
    "ReloadProtocol",
    "RemovePeer",
    "RemoveProtocol",
    "RequestGrant",
    "SetIdentityOnline",
    "SetLimits",
    "SetProtocol",
    "StartProtocol",
    "StateReply",
    "StatusReply",
    "StopProtocol",
    "TicketText",
    "WatchBindings",
    "Welcome",
]


# ── control: program → gateway ───────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True, tag=10):
    """First message on ``control.sock``; answered by ``Welcome``, or an ``ErrorReply`` with ``version-mismatch``."""

    version: int
    program: str = ""
    """What the program calls itself, for ``status``; at most 64 characters."""


class CreateIdentity(Message, frozen=True, tag=11):
    """Answered by ``IdentityReply``."""

    name: str


class DeleteIdentity(Message, frozen=True, tag=12):
    """Takes the identity offline, then deletes its key and its directory. Answered by ``Ack``."""

    name: str


class ListIdentities(Message, frozen=True, tag=13):
    """A page of the identities, by name. Answered by ``IdentityList``."""

    after: str = ""
    """The last name of the page before; empty for the first page."""
    limit: int = 0
    """Entries in the answer, at most; 0 stands for as many as the daemon gives at once (20,000)."""


class SetIdentityOnline(Message, frozen=True, tag=14):
    """Brings the identity online, answered once its process serves, or offline. Answered by ``IdentityReply``."""

    name: str
    online: bool


class AddProtocol(Message, frozen=True, tag=15):
    """Binds a protocol to an identity. The payload is the config as JSON (empty: ``{}``). Answered by ``Ack``.

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
    """Answered by ``Ack``. The binding's workspace directory goes too, unless it is to be kept.

    For a binding that was removed with ``keep_data``, it removes what was kept.
    """

    identity: str
    protocol: str
    instance: str
    keep_data: bool = False
    """The workspace stays: the same instance finds it when it is added again."""
    if_empty: bool = False
    """Answered by an ``ErrorReply`` with ``workspace-not-empty``, and nothing is changed, where files would be lost."""


class SetProtocol(Message, frozen=True, tag=35):
    """Replaces the config or the access list of a binding, or both, also while it serves. Answered by ``StateReply``.

    The payload is the whole new config as JSON; empty keeps the one that it has. When anything is refused, the binding
    keeps what it has.
    """

    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] | None = None
    """As in ``AddProtocol``; None keeps the one that it has."""


class SetLimits(Message, frozen=True, tag=36):
    """Changes what the processes of an identity may use, also while it is online. Answered by ``IdentityReply``.

    Each number is as in ``IdentityLimits``; None keeps what it has, and -1 leaves it to the daemon again.
    """

    identity: str
    memory: int | None = None
    processes: int | None = None
    file_size: int | None = None
    open_files: int | None = None


class GetStatus(Message, frozen=True, tag=17):
    """Answered by ``StatusReply``."""

    limit: int = 0
    """Identities, peers, connections and processes in the answer, of each at most so many; 0 stands for 1,000."""


class GetTicket(Message, frozen=True, tag=18):
    """Answered by ``TicketText``. The identity must be online; empty stands for the only one."""

    identity: str


class AddPeer(Message, frozen=True, tag=19):
    """Puts a peer into the address book. ``peer`` is a ticket or an ID52. Answered by ``PeerReply``."""

    peer: str
    name: str


class ListPeers(Message, frozen=True, tag=20):
    """A page of the address book, by name. Answered by ``PeerList``. Fields as in ``ListIdentities``."""

    after: str = ""
    limit: int = 0


class RemovePeer(Message, frozen=True, tag=21):
    """Answered by ``Ack``."""

    name: str


class RequestGrant(Message, frozen=True, tag=22):
    """Asks that this program may serve one protocol instance of an identity. Answered by ``Grant``."""

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
    failed: dict[str, str] = msgspec.field(default_factory=dict)
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


class IdentityReply(Message, frozen=True, tag=41):
    identity: IdentityInfo


class IdentityList(Message, frozen=True, tag=42):
    identities: list[IdentityInfo]
    more: bool = False
    """True if there are more behind the last one."""


class TicketText(Message, frozen=True, tag=43):
    ticket: str
    expires: int = 0
    """Unix time in seconds; 0: not said."""
    relays: tuple[str, ...] = ()
    """URLs of the relays that it names."""
    addresses: tuple[str, ...] = ()
    """Addresses that it names, ``ip:port``."""


class PeerReply(Message, frozen=True, tag=44):
    peer: PeerInfo
    renamed_from: str = ""
    """The name that the same peer had until now, if that was another one."""


class PeerList(Message, frozen=True, tag=45):
    peers: list[PeerInfo]
    more: bool = False
    """As in ``IdentityList``."""


class StatusReply(Message, frozen=True, tag=46):
    status: Status


class Grant(Message, frozen=True, tag=47):
    """Until the daemon is started anew, whoever says ``RegisterBinding`` with this grant serves what was asked for."""

    grant: bytes
    key: bytes
    """The identity's public key, 32 bytes."""
    online: bool
    """Whether its owner has brought it online: only then does anything arrive."""
    allow: tuple[str, ...] = ()
    """Who may use it, where its owner has said so: then whoever serves has no say in it."""


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


class ProtocolList(Message, frozen=True, tag=48):
    protocols: list[ProtocolInfo]


class StateReply(Message, frozen=True, tag=49):
    """``state`` as in ``BindingStatus``."""

    state: str


ControlRequest: TypeAlias = (
    Hello
    | CreateIdentity
    | DeleteIdentity
    | ListIdentities
    | SetIdentityOnline
    | AddProtocol
    | RemoveProtocol
    | SetLimits
    | SetProtocol
    | GetStatus
    | GetTicket
    | AddPeer
    | ListPeers
    | RemovePeer
    | RequestGrant
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
    | Grant
    | ProtocolList
    | StateReply
    | BindingList
    | BindingReply
    | Ack
    | LongReply
    | ErrorReply
)
"""What the gateway answers."""
