"""Permissions of each role at the vault."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import msgspec
import pytest

from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK, OWNER, ROLES, TABLE, VaultState, check_allowed
from fastn_p2p_actors.vault.messages import SignDelegation, SignInvitation, SignRecord, VaultRequest
from fastn_p2p_actors.vault.owner_messages import OwnerRequest
from fastn_p2p_client.errors import BackupUnusable, BindingNotFound, Forbidden, ReplicaNotFound, ReplicaRemoved
from fastn_p2p_client.ipc.messages import GetStatus
from tests.support.vault_setup import REQUESTS, STRANGERS, VaultSetup, invitation_of_alice


def test_table_lists_every_request_in_every_state_and_nothing_else() -> None:
    messages, own = set(get_args(VaultRequest)), set(get_args(OwnerRequest))
    assert messages == set(REQUESTS)
    assert messages | own == set(TABLE)
    for kind, rights in TABLE.items():
        assert set(rights) == set(VaultState)
        assert all(roles <= ({OWNER} if kind in own else set(ROLES)) for roles in rights.values())


def test_table_of_permissions() -> None:
    allowed = {
        (kind.__name__, state.value): sorted(roles) for kind, rights in TABLE.items() for state, roles in rights.items()
    }
    assert allowed == {
        ("CreateKey", "open"): [GATEWAY],
        ("CreateKey", "locked"): [],
        ("DeleteKey", "open"): [GATEWAY],
        ("DeleteKey", "locked"): [],
        ("ListKeys", "open"): [GATEWAY],
        ("ListKeys", "locked"): [],
        ("RevokeKey", "open"): [GATEWAY],
        ("RevokeKey", "locked"): [],
        ("ListRevokedKeys", "open"): [GATEWAY],
        ("ListRevokedKeys", "locked"): [GATEWAY],
        ("AdoptKeys", "open"): [GATEWAY],
        ("AdoptKeys", "locked"): [],
        ("RotateTransportKey", "open"): [GATEWAY],
        ("RotateTransportKey", "locked"): [],
        ("GetEndpoint", "open"): [GATEWAY],
        ("GetEndpoint", "locked"): [GATEWAY],
        ("GetLockState", "open"): [GATEWAY],
        ("GetLockState", "locked"): [GATEWAY],
        ("GetTransport", "open"): [NETWORK],
        ("GetTransport", "locked"): [NETWORK],
        ("SignDelegation", "open"): [NETWORK],
        ("SignDelegation", "locked"): [NETWORK],
        ("SignRecord", "open"): [NETWORK],
        ("SignRecord", "locked"): [NETWORK],
        ("SignPacket", "open"): [NETWORK],
        ("SignPacket", "locked"): [NETWORK],
        ("SignBatch", "open"): [NETWORK],
        ("SignBatch", "locked"): [NETWORK],
        ("SignInvitation", "open"): [NETWORK],
        ("SignInvitation", "locked"): [],
        ("EnrolReplica", "open"): [GATEWAY],
        ("EnrolReplica", "locked"): [],
        ("EndReplica", "open"): [GATEWAY],
        ("EndReplica", "locked"): [],
        ("ListEnrolled", "open"): [GATEWAY, NETWORK],
        ("ListEnrolled", "locked"): [GATEWAY, NETWORK],
        ("PromoteHome", "open"): [GATEWAY],
        ("PromoteHome", "locked"): [GATEWAY],
        ("ClaimHome", "open"): [NETWORK],
        ("ClaimHome", "locked"): [NETWORK],
        ("AdoptEnrolled", "open"): [GATEWAY],
        ("AdoptEnrolled", "locked"): [],
        ("NoteOwner", "open"): [NETWORK],
        ("NoteOwner", "locked"): [NETWORK],
        ("SignReplica", "open"): [NETWORK],
        ("SignReplica", "locked"): [],
        ("RecordEvent", "open"): [GATEWAY, NETWORK],
        ("RecordEvent", "locked"): [GATEWAY, NETWORK],
        ("Cancel", "open"): [GATEWAY, NETWORK],
        ("Cancel", "locked"): [GATEWAY, NETWORK],
        ("GetVaultStatus", "open"): [OWNER],
        ("GetVaultStatus", "locked"): [OWNER],
        ("SetPassphrase", "open"): [OWNER],
        ("SetPassphrase", "locked"): [OWNER],
        ("UnlockVault", "open"): [OWNER],
        ("UnlockVault", "locked"): [OWNER],
        ("LockVault", "open"): [OWNER],
        ("LockVault", "locked"): [OWNER],
        ("AddSlot", "open"): [OWNER],
        ("AddSlot", "locked"): [OWNER],
        ("RemoveSlot", "open"): [OWNER],
        ("RemoveSlot", "locked"): [OWNER],
        ("CheckSecret", "open"): [OWNER],
        ("CheckSecret", "locked"): [OWNER],
        ("CreateBackup", "open"): [OWNER],
        ("CreateBackup", "locked"): [],
        ("OpenBackup", "open"): [OWNER],
        ("OpenBackup", "locked"): [OWNER],
    }


def test_roles_are_those_that_the_supervisor_hands_out() -> None:
    assert sorted(generate_vault_keys().vault.roles.values()) == sorted(ROLES)


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
@pytest.mark.parametrize("kind", REQUESTS)
def test_every_request_of_every_wrong_role_is_forbidden_and_does_nothing(
    setup: VaultSetup, kind: type[msgspec.Struct], role: str
) -> None:
    if role in TABLE[kind][VaultState.OPEN]:
        with suppress(BackupUnusable, BindingNotFound, ReplicaNotFound, ReplicaRemoved):  # there are none
            setup.request(role, invitation_of_alice(setup) if kind is SignInvitation else REQUESTS[kind])
        return
    before = sorted(path.name for path in setup.folder.rglob("*"))
    with pytest.raises(Forbidden) as caught:
        setup.request(role, REQUESTS[kind])
    assert caught.value.request == kind.__name__
    assert sorted(path.name for path in setup.folder.rglob("*")) == before


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
def test_requests_outside_the_table_are_forbidden(role: str) -> None:
    with pytest.raises(Forbidden):
        check_allowed(role, VaultState.OPEN, GetStatus())


def test_forbidden_comes_before_any_other_answer(setup: VaultSetup) -> None:
    """A sender without permission does not learn whether an identity exists."""
    for request in (SignDelegation("nobody"), SignDelegation("NOT A NAME"), SignRecord("alice", ("x",), ())):
        with pytest.raises(Forbidden):
            setup.request(GATEWAY, request)
