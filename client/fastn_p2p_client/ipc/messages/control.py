"""Control messages: requests of programs to the gateway, and its replies.

Each request names the type of its reply as ``reply_type``. Any request can be answered by an ``ErrorReply`` instead.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypeVar

import msgspec

from .base import Ack, Cancel, ErrorReply, LongReply, Message
from .records import (
    BindingAccess,
    BlockedInfo,
    GroupInfo,
    IdentityInfo,
    InvitationInfo,
    KnockInfo,
    PeerInfo,
    PeerTrace,
    ProtocolInfo,
    Status,
)

__all__ = [
    "AcceptPeer",
    "AcceptSuccessor",
    "AccessReply",
    "AddPeer",
    "AddProtocol",
    "BindingList",
    "BindingReply",
    "BlockPeer",
    "BlockedList",
    "ChangeGroup",
    "CheckProtocol",
    "ControlReply",
    "ControlRequest",
    "CreateGroup",
    "CreateIdentity",
    "CreateInvitation",
    "DeleteGroup",
    "DeleteIdentity",
    "ExplainPeer",
    "GetAccess",
    "GetBinding",
    "GetStatus",
    "GetTicket",
    "Grant",
    "GroupList",
    "Hello",
    "IdentityList",
    "IdentityReply",
    "InvitationList",
    "InvitationText",
    "KnockList",
    "ListBlocked",
    "ListGroups",
    "ListIdentities",
    "ListInvitations",
    "ListKnocks",
    "ListPeers",
    "ListProtocols",
    "PeerList",
    "PeerReply",
    "PeerTraceReply",
    "PingPeer",
    "PingReply",
    "ProtocolList",
    "ReloadProtocol",
    "ReloadSettings",
    "RemovePeer",
    "RemoveProtocol",
    "RequestFor",
    "RequestGrant",
    "RestoreBackup",
    "RestoreReply",
    "RevokeIdentity",
    "RevokeInvitation",
    "RotateTransport",
    "SetIdentityOnline",
    "SetLimits",
    "SetListed",
    "SetProtocol",
    "SettingsReply",
    "StartProtocol",
    "StateReply",
    "StatusReply",
    "StopProtocol",
    "TicketText",
    "TransportReply",
    "UnblockPeer",
    "WatchBindings",
    "Welcome",
]

ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class RequestFor(Protocol[ReplyT_co]):
    """A control request that is answered by a ``ReplyT_co``. For type checkers: every request below is one."""

    @property
    def reply_type(self) -> type[ReplyT_co]: ...


# ── gateway → program ────────────────────────────────────────────────────────────────────────────


class Welcome(Message, frozen=True, tag=40):
    """The daemon speaks this version. The network process listens at ``data_route`` (a path)."""

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
    """True if there are more identities after the last one."""


class TicketText(Message, frozen=True, tag=43):
    ticket: str
    expires: int = 0
    """Unix time in seconds; 0 when it is not known."""
    relays: tuple[str, ...] = ()
    """URLs of the relays in the ticket."""
    addresses: tuple[str, ...] = ()
    """Addresses in the ticket, ``ip:port``."""


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


class StatusReply(Message, frozen=True, tag=46):
    status: Status


class Grant(Message, frozen=True, tag=47):
    """A program that sends ``RegisterBinding`` with this grant serves the binding. Valid until the daemon restarts."""

    grant: bytes
    key: bytes
    """Public key of the identity, 32 bytes."""
    online: bool
    """True if the owner has brought the identity online. Only then do calls arrive."""
    allow: tuple[str, ...] = ()
    """Access list that the owner has set; the program cannot change it. Empty when the owner has set none."""


class ProtocolList(Message, frozen=True, tag=48):
    protocols: list[ProtocolInfo]


class StateReply(Message, frozen=True, tag=49):
    """State of a binding, with the values of ``BindingStatus.state``."""

    state: str


class BindingList(Message, frozen=True, tag=51):
    """The bindings of one protocol. The payload is a msgpack array of ``BindingInfo``."""

    revision: bytes


class BindingReply(Message, frozen=True, tag=52):
    """A binding. The payload is its config as JSON."""

    key: bytes
    """Public key of the identity, 32 bytes."""
    workspace: str
    """Path of the binding's own directory."""
    version: bytes
    """Changes whenever the config or the access list changes, as in ``BindingInfo``."""
    allow: tuple[str, ...] = ()
    """Access list, with the entries of ``AddProtocol``."""


class SettingsReply(Message, frozen=True, tag=53):
    """The daemon has read its settings again."""

    fixed: tuple[str, ...] = ()
    """Keys that the file cannot change, because the daemon was started with an option or an environment variable."""


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


class KnockList(Message, frozen=True, tag=86):
    """Strangers that were refused, the last refusal first."""

    revision: int
    """Changes with each new and each removed entry."""
    knocks: list[KnockInfo]


class GroupList(Message, frozen=True, tag=87):
    groups: list[GroupInfo]


class AccessReply(Message, frozen=True, tag=88):
    bindings: list[BindingAccess]


class BlockedList(Message, frozen=True, tag=89):
    blocked: list[BlockedInfo]


class InvitationText(Message, frozen=True, tag=78):
    """A new invitation."""

    invitation: InvitationInfo
    ticket: str
    """Text for the bearer. It has the secret, which the daemon does not keep."""
    relays: tuple[str, ...] = ()
    """URLs of the relays in it."""
    addresses: tuple[str, ...] = ()
    """Addresses in it, ``ip:port``."""

    def __repr__(self) -> str:
        return f"InvitationText({self.invitation!r})"


class InvitationList(Message, frozen=True, tag=79):
    """Invitations, the newest first."""

    invitations: list[InvitationInfo]


# ── program → gateway ────────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True, tag=10):
    """First message on ``control.sock``. The gateway rejects another version with the error ``version-mismatch``."""

    reply_type = Welcome
    version: int
    program: str = ""
    """Name of the program in ``status``, at most 64 characters."""


class CreateIdentity(Message, frozen=True, tag=11):
    """Create an identity and its key."""

    reply_type = IdentityReply
    name: str
    listed: bool = True
    """False if its record must not be published to directories and the LAN."""


class DeleteIdentity(Message, frozen=True, tag=12):
    """Take the identity offline, then delete its key and its directory."""

    reply_type = Ack
    name: str


class ListIdentities(Message, frozen=True, tag=13):
    """List one page of the identities, sorted by name."""

    reply_type = IdentityList
    after: str = ""
    """Last name of the previous page; empty for the first page."""
    limit: int = 0
    """Maximum number of entries in the reply; 0 stands for the daemon's maximum (20,000)."""


class SetIdentityOnline(Message, frozen=True, tag=14):
    """Bring the identity online or take it offline. Online, the reply comes once its process serves."""

    reply_type = IdentityReply
    name: str
    online: bool


class AddProtocol(Message, frozen=True, tag=15):
    """Bind a protocol to an identity. The payload is the config as JSON; empty stands for ``{}``.

    ``allow`` is the access list. Its entries are ``"everyone"``, ``"peers"`` (the address book), ``"group:NAME"``, an
    ID52 or a petname.
    Empty leaves access to the protocol's declaration: public, or else ``"peers"``.
    """

    reply_type = Ack
    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    program: bool = False
    """True if a program serves it: the daemon keeps config and workspace, and does not look for protocol code."""
    granted: tuple[str, ...] = ()
    """Permissions that the owner grants, as lines of ``Permissions``. A protocol that does not come with the daemon is
    refused with ``PermissionsNeeded`` if it needs others."""


class RemoveProtocol(Message, frozen=True, tag=16):
    """Remove a binding and, unless ``keep_data`` is set, its workspace directory.

    For a binding that was removed with ``keep_data``, delete the workspace that was kept.
    """

    reply_type = Ack
    identity: str
    protocol: str
    instance: str
    keep_data: bool = False
    """Keep the workspace: the instance finds it again when it is added again."""
    if_empty: bool = False
    """Change nothing if files would be lost; the error is ``workspace-not-empty``."""


class SetProtocol(Message, frozen=True, tag=35):
    """Replace the config or the access list of a binding, or both, also while it serves.

    The payload is the whole new config as JSON; empty keeps the current one. On any error the binding keeps both.
    """

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] | None = None
    """Access list, with the entries of ``AddProtocol``; None keeps the current one."""
    granted: tuple[str, ...] = ()
    """Further permissions that the owner grants, as in ``AddProtocol``."""


class SetLimits(Message, frozen=True, tag=36):
    """Change the resource limits of an identity's processes, also while it is online.

    The units are those of ``IdentityLimits``. None keeps the current limit, and -1 restores the daemon's default.
    """

    reply_type = IdentityReply
    identity: str
    memory: int | None = None
    processes: int | None = None
    file_size: int | None = None
    open_files: int | None = None


class SetListed(Message, frozen=True, tag=59):
    """Publish an identity's record to directories and the LAN from now on, or withdraw it from them."""

    reply_type = IdentityReply
    identity: str
    listed: bool


class GetStatus(Message, frozen=True, tag=17):
    """Get the state of the daemon."""

    reply_type = StatusReply
    limit: int = 0
    """Maximum number of identities, peers, connections and processes in the reply, each; 0 stands for 1,000."""


class GetTicket(Message, frozen=True, tag=18):
    """Get a ticket of an identity, which must be online. An empty name stands for the only one online."""

    reply_type = TicketText
    identity: str


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


class RequestGrant(Message, frozen=True, tag=22):
    """Ask for the permission to serve one protocol instance of an identity."""

    reply_type = Grant
    identity: str
    protocol: str
    instance: str


class CheckProtocol(Message, frozen=True, tag=23):
    """Read the config of a binding from its file and check it. An invalid one is answered by an error."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class ReloadProtocol(Message, frozen=True, tag=24):
    """Read the config and the access list of a binding from its file, check them, and apply them.

    If they are invalid, the binding keeps the ones that it has.
    """

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class StartProtocol(Message, frozen=True, tag=25):
    """Serve a binding again that was stopped or has failed."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class StopProtocol(Message, frozen=True, tag=26):
    """Stop serving a binding, also after restarts, until ``StartProtocol``."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class ReloadSettings(Message, frozen=True, tag=37):
    """Read ``config.toml`` in the home again. Its relays and directories take effect at once.

    An invalid file is answered by the error ``storage-damaged``, and changes nothing.
    """

    reply_type = SettingsReply


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


class ListProtocols(Message, frozen=True, tag=27):
    """List the protocols that are installed where the daemon runs."""

    reply_type = ProtocolList


class WatchBindings(Message, frozen=True, tag=28):
    """Long poll for the bindings of one protocol that programs serve, of all identities.

    The reply comes at once if the revision differs from ``seen``. Otherwise it comes when the bindings change, or after
    a while without a change. By the next request a program confirms that it serves the bindings of the last reply and
    no others.
    """

    reply_type = BindingList
    protocol: str
    watcher: bytes
    """Random, 8 bytes: the same in all requests of one program about one protocol."""
    seen: bytes = b""
    """``revision`` of the previous reply; empty the first time."""
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    """Bindings that this program cannot serve, for ``status``: ``identity/instance`` → reason."""


class GetBinding(Message, frozen=True, tag=29):
    """Get one binding that a program serves."""

    reply_type = BindingReply
    identity: str
    protocol: str
    instance: str


class ListKnocks(Message, frozen=True, tag=90):
    """List strangers that were refused. With ``wait_ms``, a long poll for a change."""

    reply_type = KnockList
    seen: int = -1
    """``revision`` of the previous reply. The reply waits while it is the present one."""
    wait_ms: int = 0
    """Milliseconds that the reply may wait for a change, at most 30,000."""


class AcceptPeer(Message, frozen=True, tag=91):
    """Add a stranger that was refused, or any other identity, to the address book, and unblock it."""

    reply_type = PeerReply
    peer: str
    """An ID52, or the first characters of one in ``ListKnocks``; at least 4."""
    name: str = ""
    """Petname; empty for ``peer-`` and the first characters of the ID52."""
    allow: tuple[str, ...] = ()
    """Bindings whose access lists are to admit the peer: ``IDENTITY/PROTOCOL/INSTANCE``."""


class BlockPeer(Message, frozen=True, tag=92):
    """Refuse an identity from now on, and end its calls, sessions and connections."""

    reply_type = Ack
    peer: str
    """A petname, an ID52, or the first characters of one in ``ListKnocks``."""


class UnblockPeer(Message, frozen=True, tag=93):
    """Refuse an identity no longer. Changes nothing if it is not blocked."""

    reply_type = Ack
    peer: str
    """A petname or an ID52."""


class ListBlocked(Message, frozen=True, tag=94):
    """List the identities that are blocked."""

    reply_type = BlockedList


class CreateGroup(Message, frozen=True, tag=95):
    """Create a group of peers without members. In access lists its name is ``group:NAME``."""

    reply_type = Ack
    name: str


class DeleteGroup(Message, frozen=True, tag=96):
    """Delete a group of peers. Its members stay in the address book; access lists that name it admit nobody by it."""

    reply_type = Ack
    name: str


class ChangeGroup(Message, frozen=True, tag=97):
    """Add members to a group and remove members from it, with effect at once. Members are petnames or ID52s."""

    reply_type = Ack
    name: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ListGroups(Message, frozen=True, tag=98):
    """List the groups of peers."""

    reply_type = GroupList


class GetAccess(Message, frozen=True, tag=99):
    """Get the identities that may use each binding, and the reasons."""

    reply_type = AccessReply
    identity: str = ""
    """Name of the only identity whose bindings are listed; empty for all."""
    peer: str = ""
    """The only caller of interest: a petname or an ID52; empty for all that are admitted."""


class RevokeIdentity(Message, frozen=True, tag=120):
    """Revoke an identity for good: it goes offline, and every peer that learns of it refuses it. Its key is kept.

    An interrupted request can be repeated.
    """

    reply_type = IdentityReply
    name: str
    successor: str = ""
    """ID52, or name of an identity of this daemon, that takes its place; empty without one."""


class AcceptSuccessor(Message, frozen=True, tag=121):
    """Replace the key of a revoked peer by that of its successor. Petname, groups and blocking stay."""

    reply_type = PeerReply
    name: str
    """Petname or ID52 of the revoked peer."""


class CreateInvitation(Message, frozen=True, tag=75):
    """Make an invitation of an online identity: a ticket that lets its bearers use some bindings, and no others."""

    reply_type = InvitationText
    identity: str
    """Empty for the only one online."""
    bindings: tuple[str, ...]
    """``PROTOCOL``, for its default instance, or ``PROTOCOL/INSTANCE``; 1 to 16."""
    uses: int = 1
    """Number of bearers, at most 1,000."""
    seconds: int = 7 * 24 * 3600
    """Time for which it can be redeemed, at most a year. The permission of a bearer does not end then."""
    name: str = ""
    """Petname of its only bearer; empty for the name that the bearer's owner gave it, or a similar one."""


class ListInvitations(Message, frozen=True, tag=76):
    """List the invitations of this daemon. Those that have let in no one go a month after their end."""

    reply_type = InvitationList
    identity: str = ""
    """Name of the only identity whose invitations are listed; empty for all."""


class RevokeInvitation(Message, frozen=True, tag=77):
    """Let in no more bearers of an invitation. May be repeated."""

    reply_type = InvitationList
    id: str
    """Its id, or the first characters of it, at least 4."""
    access: bool = False
    """Also take the permission back from those who were let in, and end their sessions."""


class RestoreReply(Message, frozen=True, tag=123):
    """Outcome of a restore."""

    identities: list[IdentityInfo]
    """Identities that were restored."""
    skipped: list[str]
    """Names in the backup of identities that are here already, or were left out."""
    peers: int
    """Peers that were restored, or that got records."""
    problems: tuple[str, ...] = ()
    """Files in the backup that cannot be used."""


class RestoreBackup(Message, frozen=True, tag=122):
    """Restore a backup that the vault has opened. The payload has its files without secrets.

    All of it is restored or nothing, also after a crash. An interrupted request can be repeated.
    """

    reply_type = RestoreReply
    token: bytes
    """Name of the opened backup, from the vault."""
    identities: tuple[str, ...] = ()
    """Names in the backup; every identity if there are none."""
    renames: tuple[tuple[str, str], ...] = ()
    """Identities that get another name: the one in the backup, and the new one."""
    peer_renames: tuple[tuple[str, str], ...] = ()
    """The same for peers. Access lists follow."""
    skip_identities: bool = False
    """Leave out identities that are in conflict with those here, instead of restoring nothing."""
    skip_peers: bool = False
    """The same for peers and groups."""
    protocols: bool = True
    """Restore bindings, with configs and access lists."""
    peers: bool = True
    """Restore the address book, groups, and blocked and revoked peers."""
    offline: bool = False
    """Keep the identities offline. Otherwise those are brought online that were online."""


class TransportReply(Message, frozen=True, tag=125):
    """Transport key in use."""

    endpoint: str
    """Public key of the endpoint, in hexadecimal as in ``Status``."""
    epoch: int
    """Number of the key: 1 for the first one of this home."""
    since: str
    """Time at which it was made: UTC, ISO 8601."""


class RotateTransport(Message, frozen=True, tag=124):
    """Replace the transport key by a new one, with the next epoch. Connections move to the new endpoint."""

    reply_type = TransportReply


ControlRequest: TypeAlias = (
    Hello
    | CreateIdentity
    | DeleteIdentity
    | ListIdentities
    | SetIdentityOnline
    | AddProtocol
    | RemoveProtocol
    | SetLimits
    | SetListed
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
    | ReloadSettings
    | PingPeer
    | ExplainPeer
    | WatchBindings
    | GetBinding
    | ListKnocks
    | AcceptPeer
    | BlockPeer
    | UnblockPeer
    | ListBlocked
    | CreateGroup
    | DeleteGroup
    | ChangeGroup
    | ListGroups
    | GetAccess
    | RevokeIdentity
    | AcceptSuccessor
    | CreateInvitation
    | ListInvitations
    | RevokeInvitation
    | RestoreBackup
    | RotateTransport
    | Cancel
)
"""Messages that a program sends to the gateway."""


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
    | SettingsReply
    | PingReply
    | PeerTraceReply
    | KnockList
    | GroupList
    | AccessReply
    | BlockedList
    | InvitationText
    | InvitationList
    | RestoreReply
    | TransportReply
    | Ack
    | LongReply
    | ErrorReply
)
"""Messages that the gateway sends to a program."""
