"""Messages of the gateway to the network process, beside the ``DataRequest`` that every program may send.

``AuthenticateGateway`` comes first on each connection. Without it, the other messages are refused.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.ipc.messages import (
    AccessEntry,
    ConnectionStatus,
    DataRequest,
    IdentityStatus,
    Message,
    PeerInfo,
    WaitingItem,
)

from ..storage.invitation_file import SavedInvitation
from ..storage.replica_reports import ReplicaReport

REDEEM_SECONDS: Final = 30.0
"""Seconds for the redemption of an invitation: connecting and the answer take 25 at most."""
MAX_PAGE: Final = 20_000
"""Number of peers or identities in one reply, which makes about 4 MB."""


class AuthenticateGateway(Message, frozen=True, tag=500):
    """Shows the gateway's grant. Answered by ``Ack`` or the error ``forbidden``."""

    grant: bytes


class CreateTicket(Message, frozen=True, tag=501):
    """Requests a new ticket of an online identity; empty stands for the only one. Answered by ``TicketText``."""

    identity: str


class SavePeer(Message, frozen=True, tag=502):
    """Adds a peer to the address book: ``peer`` is a ticket or an ID52. Answered by ``PeerReply``.

    A ticket that is an invitation is redeemed first, which may take ``REDEEM_SECONDS``.
    """

    peer: str
    name: str
    identity: str = ""
    """Own identity that an invitation lets in; empty for the only one online."""
    accepted: bool = False
    """True if the owner accepts the peer as others, although an invitation may have let it in."""


class DeletePeer(Message, frozen=True, tag=503):
    """Removes a peer from the address book. Answered by ``Ack``."""

    name: str


class GetPeers(Message, frozen=True, tag=504):
    """Requests at most ``limit`` entries of the address book that follow ``after`` (0: a page). Answered by
    ``PeerList``."""

    after: str = ""
    limit: int = 0


class GetNetworkReport(Message, frozen=True, tag=505):
    """Requests the report for ``status``. Answered by ``NetworkReportReply``."""

    limit: int = 0
    """Largest number of identities, of peers and of connections in the report; 0 stands for ``MAX_PAGE``."""
    identity: str = ""
    """Name of the only identity in the report, which then has no peers and no connections. Empty for all."""


class ReloadNetworkSettings(Message, frozen=True, tag=506):
    """Requests that ``config.toml`` is read again. Answered by ``SettingsReply``, or by an error if it is invalid."""


class MeasureRoundTrip(Message, frozen=True, tag=507):
    """Requests one ping of a peer; the fields are those of ``PingPeer``. Answered by ``PingReply``."""

    identity: str
    peer: str
    timeout_ms: int


class TracePeer(Message, frozen=True, tag=508):
    """Requests each step to a peer; the fields are those of ``ExplainPeer``. Answered by ``PeerTraceReply``."""

    identity: str
    peer: str
    protocol: str
    instance: str
    timeout_ms: int


class ListIdentity(Message, frozen=True, tag=509):
    """Publish the record of an online identity to directories and the LAN, or withdraw it. Answered by ``Ack``."""

    identity: str
    listed: bool


class GetPendingPeers(Message, frozen=True, tag=510):
    """List strangers that were refused, with the fields of ``ListPendingPeers``. Answered by ``PendingPeerList``."""

    seen: int
    wait_ms: int


class SetBlocked(Message, frozen=True, tag=511):
    """Block or unblock an identity: a petname or an ID52. Answered by ``PeerReply``; ``name`` is empty without a
    petname."""

    peer: str
    blocked: bool


class GetBlocked(Message, frozen=True, tag=512):
    """Requests the identities that are blocked. Answered by ``BlockedList``."""


class SetGroup(Message, frozen=True, tag=513):
    """Create or delete a group. Answered by ``Ack``."""

    name: str
    exists: bool


class SetMembers(Message, frozen=True, tag=514):
    """Add and remove members of a group: petnames or ID52s. Answered by ``Ack``."""

    name: str
    add: tuple[str, ...]
    remove: tuple[str, ...]


class GetGroups(Message, frozen=True, tag=515):
    """Requests the groups of peers. Answered by ``GroupList``."""


class EvaluateAccess(Message, frozen=True, tag=516):
    """Requests what access lists mean now. Answered by ``AccessEvaluation``."""

    lists: tuple[tuple[str, ...], ...]
    peer: str = ""
    """The only caller of interest: a petname or an ID52; empty for all that are admitted."""
    bindings: tuple[tuple[str, str, str], ...] = ()
    """Identity, protocol and instance of each list, for the permissions by invitations. Empty without those."""


class Sleeper(msgspec.Struct, frozen=True, array_like=True):
    """Identity that its owner wants online, and that may be asleep."""

    name: str
    listed: bool
    bindings: tuple[tuple[str, str], ...]
    """Protocol and instance of each binding that its process would serve."""
    id52: str
    """ID52 of its key."""


class WorkerBinding(msgspec.Struct, frozen=True, array_like=True):
    """Binding that workers on other machines may serve."""

    binding: tuple[str, str, str]
    """Identity, protocol and instance."""
    allow: tuple[str, ...]
    """Access list that its owner has set."""
    hashes: tuple[bytes, ...]
    """Hash of each valid token."""


class SetWorkerBindings(Message, frozen=True, tag=157):
    """Set all bindings that workers on other machines may serve. The reply says where they connect."""

    bindings: tuple[WorkerBinding, ...]


class WorkerListenerReply(Message, frozen=True, tag=155):
    """Where workers connect."""

    address: str
    """Host and port; empty if nothing listens."""
    fingerprint: bytes
    """SHA-256 of the certificate; empty if nothing listens."""
    problem: str
    """Why nothing listens although the settings want it; empty otherwise."""


class AnnounceSleepers(Message, frozen=True, tag=517):
    """Bring these identities online without a process if they were asleep before and have the same bindings.

    The reply is ``SleeperNames`` with those that are asleep now. An identity with a process is left as it is.
    """

    sleepers: tuple[Sleeper, ...]


class RemoveSleeper(Message, frozen=True, tag=518):
    """Take the identity offline if it is asleep. Its next process starts as any other. The reply is ``Ack``."""

    identity: str


class SleeperNames(Message, frozen=True, tag=154):
    names: tuple[str, ...]


class PublishRevocation(Message, frozen=True, tag=520):
    """Publishes the revocation of an own identity. Answered by ``Ack``."""

    identity: str
    """Name of the identity."""
    revocation: bytes
    packet: bytes
    """Packet for directories with the revocation."""


class ReplacePeer(Message, frozen=True, tag=521):
    """Replaces the key of a revoked peer by that of its successor. Answered by ``PeerReply``."""

    name: str
    """Petname of the peer."""
    prepare: bool = False
    """Only check that it can be replaced, and block the successor if the peer is blocked. The reply is about the peer.
    """


class RestorePeer(Message, frozen=True, tag=522):
    """Adds a peer of a backup, or its records to those of the peer here. Answered by ``PeerReply``."""

    name: str
    """Petname of the peer, if it has none here."""
    id52: str
    added: str
    records: tuple[bytes, ...]
    """Signed records, which may be out of date."""
    invited: bool = False
    """True if an invitation has let it in, and the owner has not accepted it."""


class RestoreRevocation(Message, frozen=True, tag=523):
    """Restore the revocation of a peer from a backup. Answered by ``Ack``."""

    revocation: bytes


class PrepareRestart(Message, frozen=True, tag=526):
    """Announces a restart of the network process: the next one connects to the present peer daemons. Answered by
    ``Ack``."""


class MakeInvitation(Message, frozen=True, tag=130):
    """Makes an invitation. Answered by ``InvitationText``. The fields are those of ``CreateInvitation``, checked."""

    identity: str
    bindings: tuple[str, ...]
    """``PROTOCOL/INSTANCE``."""
    uses: int
    seconds: int
    name: str
    reserved: tuple[str, ...] = ()
    """Names that no bearer may choose: those of the owner's identities."""


class GetInvitations(Message, frozen=True, tag=131):
    """Requests the invitations of an identity; empty for all. Answered by ``InvitationList``."""

    identity: str = ""


class EndInvitation(Message, frozen=True, tag=132):
    """Ends an invitation; the fields are those of ``RevokeInvitation``. Answered by ``InvitationList``."""

    id: str
    access: bool


class RemoveInvited(Message, frozen=True, tag=133):
    """Takes a binding, or an identity, out of all invitations, because it was removed. Answered by ``Ack``."""

    identity: str
    protocol: str = ""
    """Empty for the whole identity."""
    instance: str = ""


class RestoreInvitation(Message, frozen=True, tag=134):
    """Restores the permissions that an invitation of a backup has given. Nobody else can redeem it. Answered by
    ``Ack``."""

    invitation: SavedInvitation


class RefreshReplicas(Message, frozen=True, tag=136):
    """The vault has enrolled, removed or adopted replicas of an own identity. Answered by ``Ack``."""

    identity: str
    """Name of the identity."""
    id52: str
    wait: bool = False
    """Wait for a while until all replicas that were adopted have reported."""


class RestoreReplicas(Message, frozen=True, tag=140):
    """Restores where the replicas of an identity were when a backup was made. Answered by ``Ack``."""

    identity: str
    """Name of the identity."""
    id52: str
    reports: list[ReplicaReport]


class KeepJoined(Message, frozen=True, tag=137):
    """Serve an identity whose key is elsewhere; the fields are those of ``JoinIdentity``. Answered by ``Ack``."""

    name: str
    ticket: str
    owner: str


class EndJoined(Message, frozen=True, tag=138):
    """Serve a joined identity no more. Answered by ``Ack``."""

    name: str


class GetReplicas(Message, frozen=True, tag=139):
    """Requests all replicas and joined identities. Answered by ``ReplicaList``."""


class GetNetworkFigures(Message, frozen=True, tag=135):
    """Requests the figures for metrics. Answered by ``NetworkFiguresReply``."""


class CallFigures(msgspec.Struct, frozen=True):
    """Calls in one direction, as ``CallCounters`` has them."""

    ended: int
    in_flight: int
    durations: list[int]
    seconds: float
    errors: dict[str, int]


class NetworkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the network process. Totals are from its start."""

    made: CallFigures
    """Calls of local programs."""
    served: CallFigures
    """Calls that local processes serve."""
    sessions_opened: int
    sessions_arrived: int
    open_sessions: int
    """Sessions that local programs have opened and that are open."""
    served_sessions: int
    sent: int
    """Bytes of streams to peers, also those of ended connections."""
    received: int
    connections_opened: int
    connections_accepted: int
    dials: int
    paths: dict[str, int]
    """Open connections by path: ``direct``, ``relayed`` or ``unknown``."""
    silent: int
    """Open connections over which the peer daemon does not answer."""
    waiting: dict[str, tuple[int, int]]
    """Bytes of payloads that wait, and their limit, by whose they are: ``strangers``, ``peers`` or ``programs``."""
    wake_ups: int = 0
    """Attempts to wake identities that were asleep."""
    sessions_taken: int = 0
    """Sessions that workers have taken from an identity's process."""
    tokens_refused: int = 0
    """Tokens for one session that did not count."""


class NetworkFiguresReply(Message, frozen=True, tag=152):
    figures: NetworkFigures


class AccessEvaluation(Message, frozen=True, tag=151):
    """For each access list its entries, or the one entry about the peer."""

    lists: list[list[AccessEntry]]


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """State of the network process, for ``status``. Identities have ``wanted=True``."""

    endpoint: str
    addresses: list[str]
    clients: int
    identities: list[IdentityStatus]
    peers: list[PeerInfo]
    connections: list[ConnectionStatus]
    warnings: list[str]
    identities_total: int = 0
    """Number of identities that are online."""
    asleep_total: int = 0
    """Number of them that are asleep."""
    peers_total: int = 0
    connections_total: int = 0
    relays: list[str] = []
    """URLs of the relays in use."""
    home_relay: str = ""
    """URL of the relay that the endpoint is connected to; empty without one."""
    directories: list[str] = []
    """URLs of the directories in use."""
    lan: bool = False
    """True if peers are found on the LAN."""
    pending: int = 0
    """Number of strangers that were refused and that the owner has neither accepted nor blocked."""
    blocked: int = 0
    """Number of blocked identities."""
    revoked: dict[str, tuple[str, str]] = {}
    """Own identities that were revoked, by name: time (UTC, ISO 8601), and ID52 of the successor or nothing."""
    invitations: int = 0
    """Number of invitations that can be redeemed."""


class NetworkReportReply(Message, frozen=True, tag=150):
    report: NetworkReport


WAITING: Final = b"waiting"
"""Correlation id of ``WaitingList``, which answers no request."""


class WaitingList(Message, frozen=True, tag=153):
    """Things that wait for the owner. Sent to the gateway after it has authenticated itself, and after changes."""

    items: tuple[WaitingItem, ...]


ContactRequest: TypeAlias = (
    GetPendingPeers | SetBlocked | GetBlocked | SetGroup | SetMembers | GetGroups | EvaluateAccess | ReplacePeer
)
"""Messages about contacts beside the address book."""

InvitationRequest: TypeAlias = MakeInvitation | GetInvitations | EndInvitation | RemoveInvited | RestoreInvitation
"""Messages about invitations that this daemon has made."""

ReplicaRequest: TypeAlias = RefreshReplicas | RestoreReplicas | KeepJoined | EndJoined | GetReplicas
"""Messages about identities that several daemons serve."""

NetworkRequest: TypeAlias = (
    DataRequest
    | AuthenticateGateway
    | CreateTicket
    | SavePeer
    | DeletePeer
    | GetPeers
    | GetNetworkReport
    | GetNetworkFigures
    | ReloadNetworkSettings
    | ListIdentity
    | AnnounceSleepers
    | SetWorkerBindings
    | RemoveSleeper
    | MeasureRoundTrip
    | TracePeer
    | PublishRevocation
    | RestorePeer
    | RestoreRevocation
    | PrepareRestart
    | ContactRequest
    | InvitationRequest
    | ReplicaRequest
)
"""Every message that the network process accepts in its mailbox."""
