"""Table of every command that a program may send, with the function that runs it.

- ``identities``: create, delete and list identities, bring them online and offline, set limits.
- ``identity_revocation``: revoke an identity, accept the successor of a peer.
- ``backup``: restore a backup.
- ``bindings``, ``removal``: add a protocol to an identity, and remove it.
- ``binding_state``: check, change, reload, start and stop a binding.
- ``programs``: programs that serve bindings.
- ``peers``: address book and tickets.
- ``contacts``: strangers that were refused, blocked peers, groups.
- ``invitations``: tickets that let their bearers use some bindings.
- ``access``: who may use which binding.
- ``reach``: round trips to peers, and the steps to them.
- ``replicas``: identities that several daemons serve.
- ``worker_tokens``: tokens of workers on other machines.
- ``protocols``: installed protocols.
- ``settings``: reload of ``config.toml``.
- ``transport``: replace the transport key.
- ``status``: state of the whole daemon. ``health``: the parts of it that are not well.
- ``metrics_text``: figures for Prometheus.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from fastn_p2p_client.ipc import messages as m

from ..context import WithPayload
from .access import get_access
from .backup import restore_backup
from .binding_state import check_protocol, reload_protocol, set_protocol, start_protocol, stop_protocol
from .bindings import add_protocol
from .contacts import (
    accept_peer,
    block_peer,
    change_group,
    create_group,
    delete_group,
    list_blocked,
    list_groups,
    list_pending_peers,
    unblock_peer,
)
from .health import get_health
from .identities import create_identity, delete_identity, list_identities, set_idle, set_limits, set_listed, set_online
from .identity_revocation import accept_successor, revoke_identity
from .invitations import create_invitation, list_invitations, revoke_invitation
from .metrics_text import get_metrics
from .peers import add_peer, get_ticket, list_peers, remove_peer
from .programs import get_binding, register, watch_bindings
from .protocols import list_protocols
from .reach import explain_peer, ping_peer
from .removal import remove_protocol
from .replicas import (
    add_replica,
    adopt_replicas,
    join_identity,
    list_replicas,
    promote_replica,
    remove_joined,
    remove_replica,
)
from .settings import reload_settings
from .status import get_status
from .transport import rotate_transport
from .worker_tokens import change_worker_tokens


class Command(NamedTuple):
    run: Callable[[Any, Any, bytes], Awaitable[msgspec.Struct | WithPayload]]
    """Function of the context, the message and its payload. It returns the reply or raises a ``P2PError``."""
    changes: bool
    """True if the command is completed even when its program disconnects."""


COMMANDS: Final[dict[type[msgspec.Struct], Command]] = {
    m.CreateIdentity: Command(create_identity, changes=True),
    m.DeleteIdentity: Command(delete_identity, changes=True),
    m.ListIdentities: Command(list_identities, changes=False),
    m.SetLimits: Command(set_limits, changes=True),
    m.SetListed: Command(set_listed, changes=True),
    m.SetIdle: Command(set_idle, changes=True),
    m.SetIdentityOnline: Command(set_online, changes=True),
    m.AddProtocol: Command(add_protocol, changes=True),
    m.RemoveProtocol: Command(remove_protocol, changes=True),
    m.SetProtocol: Command(set_protocol, changes=True),
    m.ReloadSettings: Command(reload_settings, changes=True),
    m.GetStatus: Command(get_status, changes=False),
    m.GetTicket: Command(get_ticket, changes=False),
    m.AddPeer: Command(add_peer, changes=True),
    m.ListPeers: Command(list_peers, changes=False),
    m.RemovePeer: Command(remove_peer, changes=True),
    m.PingPeer: Command(ping_peer, changes=False),
    m.ExplainPeer: Command(explain_peer, changes=False),
    m.RequestGrant: Command(register, changes=False),
    m.CheckProtocol: Command(check_protocol, changes=False),
    m.ReloadProtocol: Command(reload_protocol, changes=True),
    m.StartProtocol: Command(start_protocol, changes=True),
    m.StopProtocol: Command(stop_protocol, changes=True),
    m.ListProtocols: Command(list_protocols, changes=False),
    m.WatchBindings: Command(watch_bindings, changes=False),
    m.GetBinding: Command(get_binding, changes=False),
    m.ListPendingPeers: Command(list_pending_peers, changes=False),
    m.AcceptPeer: Command(accept_peer, changes=True),
    m.BlockPeer: Command(block_peer, changes=True),
    m.UnblockPeer: Command(unblock_peer, changes=True),
    m.ListBlocked: Command(list_blocked, changes=False),
    m.CreateGroup: Command(create_group, changes=True),
    m.DeleteGroup: Command(delete_group, changes=True),
    m.ChangeGroup: Command(change_group, changes=True),
    m.ListGroups: Command(list_groups, changes=False),
    m.GetAccess: Command(get_access, changes=False),
    m.RevokeIdentity: Command(revoke_identity, changes=True),
    m.AcceptSuccessor: Command(accept_successor, changes=True),
    m.CreateInvitation: Command(create_invitation, changes=True),
    m.ListInvitations: Command(list_invitations, changes=False),
    m.RevokeInvitation: Command(revoke_invitation, changes=True),
    m.RestoreBackup: Command(restore_backup, changes=True),
    m.RotateTransport: Command(rotate_transport, changes=True),
    m.ChangeWorkerTokens: Command(change_worker_tokens, changes=True),
    m.GetHealth: Command(get_health, changes=False),
    m.GetMetrics: Command(get_metrics, changes=False),
    m.AddReplica: Command(add_replica, changes=True),
    m.RemoveReplica: Command(remove_replica, changes=True),
    m.PromoteReplica: Command(promote_replica, changes=True),
    m.AdoptReplicas: Command(adopt_replicas, changes=True),
    m.ListReplicas: Command(list_replicas, changes=False),
    m.JoinIdentity: Command(join_identity, changes=True),
    m.RemoveJoined: Command(remove_joined, changes=True),
}
"""Complete together with ``control_server.HANDLED_BY_SERVER``: a test compares both with ``ControlRequest``."""
COMMANDS_OF_IDENTITIES: Final = frozenset({m.ListIdentities, m.ListPeers, m.GetTicket})
"""Commands that protocol code in an identity's process may send. They change nothing."""
