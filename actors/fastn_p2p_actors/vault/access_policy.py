"""Table of the requests that each role may send to the vault. All others are refused.

A sender's role is that of the CURVE key with which it connected. It inherited the key from the supervisor.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import Forbidden, VaultLocked
from fastn_p2p_client.ipc.messages import Cancel

from .messages import (
    AdoptEnrolled,
    AdoptKeys,
    ClaimHome,
    CreateKey,
    DeleteKey,
    EndReplica,
    EnrolReplica,
    GetEndpoint,
    GetLockState,
    GetTransport,
    ListEnrolled,
    ListKeys,
    ListRevokedKeys,
    NoteOwner,
    PromoteHome,
    RecordEvent,
    RevokeKey,
    RotateTransportKey,
    SignBatch,
    SignDelegation,
    SignInvitation,
    SignPacket,
    SignRecord,
    SignReplica,
)
from .owner_messages import (
    AddSlot,
    CheckSecret,
    CreateBackup,
    GetVaultStatus,
    LockVault,
    OpenBackup,
    RemoveSlot,
    SetPassphrase,
    UnlockVault,
)

GATEWAY: Final = "gateway"
NETWORK: Final = "network"
OWNER: Final = "owner"
"""A program of the user at the vault's own socket, which no process of the daemon may use: see ``owner_socket``."""
ROLES: Final = (GATEWAY, NETWORK)
"""Roles that have a CURVE key."""


class VaultState(enum.Enum):
    """State of the vault."""

    OPEN = "open"
    """Keys can be used."""
    LOCKED = "locked"
    """Keys are sealed, and the master key is not in memory."""


Rights: TypeAlias = dict[VaultState, frozenset[str]]

_no_role: Final[frozenset[str]] = frozenset()
_gateway: Final = frozenset({GATEWAY})
_network: Final = frozenset({NETWORK})
_owner: Final = frozenset({OWNER})


def _always(roles: frozenset[str]) -> Rights:
    return dict.fromkeys(VaultState, roles)


def _open(roles: frozenset[str]) -> Rights:
    return {VaultState.OPEN: roles, VaultState.LOCKED: _no_role}


TABLE: Final[dict[type[msgspec.Struct], Rights]] = {
    CreateKey: _open(_gateway),
    DeleteKey: _open(_gateway),
    ListKeys: _open(_gateway),
    RevokeKey: _open(_gateway),
    ListRevokedKeys: _always(_gateway),
    AdoptKeys: _open(_gateway),
    RotateTransportKey: _open(_gateway),
    GetEndpoint: _always(_gateway),
    GetLockState: _always(_gateway),
    GetTransport: _always(_network),
    SignDelegation: _always(_network),
    SignRecord: _always(_network),
    SignPacket: _always(_network),
    SignBatch: _always(_network),
    SignInvitation: _open(_network),
    EnrolReplica: _open(_gateway),
    EndReplica: _open(_gateway),
    PromoteHome: _always(_gateway),
    AdoptEnrolled: _open(_gateway),
    ClaimHome: _always(_network),
    NoteOwner: _always(_network),
    ListEnrolled: _always(_gateway | _network),
    SignReplica: _open(_network),
    RecordEvent: _always(_gateway | _network),
    Cancel: _always(_gateway | _network),
    GetVaultStatus: _always(_owner),
    SetPassphrase: _always(_owner),
    UnlockVault: _always(_owner),
    LockVault: _always(_owner),
    AddSlot: _always(_owner),
    RemoveSlot: _always(_owner),
    CheckSecret: _always(_owner),
    CreateBackup: _open(_owner),
    OpenBackup: _always(_owner),
}
"""Roles that may send a request, by request and state. A locked vault signs nothing: it repeats its last reply."""


_DONE_BY: Final[dict[type[msgspec.Struct], str]] = {
    RevokeKey: "revoking an identity",
    AdoptKeys: "restoring a backup",
    CreateBackup: "making a backup",
    RotateTransportKey: "rotating the transport key",
    SignInvitation: "making an invitation",
    EnrolReplica: "adding a replica",
    EndReplica: "removing a replica",
    AdoptEnrolled: "adopting replicas",
    SignReplica: "renewing a replica's delegation",
}
"""Purpose of each request, for the error of a locked vault."""


def check_allowed(role: str, state: VaultState, request: msgspec.Struct) -> None:
    """Check that the table allows ``role`` this request in this state.

    Raises:
        VaultLocked: it does so only while the vault is open.
        Forbidden: it does not.
    """
    rights = TABLE.get(type(request), {})
    if role in rights.get(state, _no_role):
        return
    if state is VaultState.LOCKED and role in rights.get(VaultState.OPEN, _no_role):
        raise VaultLocked(what=_DONE_BY.get(type(request), "creating or deleting an identity"))
    raise Forbidden(role=role or "a sender without a role", request=type(request).__name__)
