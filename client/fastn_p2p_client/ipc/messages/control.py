"""Control messages: requests of programs to the gateway, and its replies.

Each request names the type of its reply as ``reply_type``. Any request can be answered by an ``ErrorReply`` instead.
"""

from __future__ import annotations

from typing import TypeAlias

from .access import (
    AcceptPeer,
    AccessReply,
    BlockedList,
    BlockPeer,
    ChangeGroup,
    CreateGroup,
    DeleteGroup,
    GetAccess,
    GroupList,
    ListBlocked,
    ListGroups,
    ListPendingPeers,
    PendingPeerList,
    UnblockPeer,
)
from .base import Ack, Cancel, ErrorReply, LongReply
from .bindings import (
    AddProtocol,
    BindingList,
    BindingReply,
    ChangeWorkerTokens,
    CheckProtocol,
    GetBinding,
    Grant,
    ListProtocols,
    ProtocolList,
    ReloadProtocol,
    RemoveProtocol,
    RequestGrant,
    SetProtocol,
    StartProtocol,
    StateReply,
    StopProtocol,
    WatchBindings,
    WorkerTokenReply,
)
from .health import GetHealth, GetMetrics, HealthReply
from .hello import Hello, Welcome
from .identities import (
    CreateIdentity,
    DeleteIdentity,
    GetTicket,
    IdentityList,
    IdentityReply,
    ListIdentities,
    RevokeIdentity,
    SetIdentityOnline,
    SetIdle,
    SetLimits,
    SetListed,
    TicketText,
)
from .invitations import CreateInvitation, InvitationList, InvitationText, ListInvitations, RevokeInvitation
from .maintenance import ReloadSettings, RestoreBackup, RestoreReply, RotateTransport, SettingsReply, TransportReply
from .peers import AcceptSuccessor, AddPeer, ListPeers, PeerList, PeerReply, RemovePeer
from .replicas import (
    AddReplica,
    AdoptReplicas,
    HomeReply,
    JoinIdentity,
    ListReplicas,
    PromoteReplica,
    RemoveJoined,
    RemoveReplica,
    ReplicaList,
)
from .status import GetStatus, StatusReply
from .traces import ExplainPeer, PeerTraceReply, PingPeer, PingReply

__all__ = ["ControlReply", "ControlRequest"]


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
    | SetIdle
    | SetProtocol
    | GetStatus
    | GetTicket
    | AddPeer
    | ListPeers
    | RemovePeer
    | RequestGrant
    | ChangeWorkerTokens
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
    | ListPendingPeers
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
    | GetHealth
    | GetMetrics
    | AddReplica
    | RemoveReplica
    | PromoteReplica
    | AdoptReplicas
    | ListReplicas
    | JoinIdentity
    | RemoveJoined
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
    | WorkerTokenReply
    | ProtocolList
    | StateReply
    | BindingList
    | BindingReply
    | SettingsReply
    | PingReply
    | PeerTraceReply
    | PendingPeerList
    | GroupList
    | AccessReply
    | BlockedList
    | InvitationText
    | InvitationList
    | RestoreReply
    | TransportReply
    | HealthReply
    | ReplicaList
    | HomeReply
    | Ack
    | LongReply
    | ErrorReply
)
"""Messages that the gateway sends to a program."""
