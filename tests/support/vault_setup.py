"""Vault without a process, and a request of each kind for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fastn_p2p_actors.vault.access_policy import NETWORK, OWNER
from fastn_p2p_actors.vault.actor import VaultServer
from fastn_p2p_actors.vault.messages import (
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
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.ipc.messages import Cancel
from tests.support.signer import NOW

__all__ = ["REQUESTS", "STRANGERS", "VaultClock", "VaultSetup", "invitation_of_alice"]

REQUESTS: dict[type[msgspec.Struct], msgspec.Struct] = {
    CreateKey: CreateKey("bob"),
    DeleteKey: DeleteKey("alice"),
    ListKeys: ListKeys(),
    GetLockState: GetLockState(),
    RevokeKey: RevokeKey("alice"),
    ListRevokedKeys: ListRevokedKeys(),
    AdoptKeys: AdoptKeys(b"token", (("alice", "alice"),)),
    RotateTransportKey: RotateTransportKey(),
    GetEndpoint: GetEndpoint(),
    GetTransport: GetTransport(),
    SignDelegation: SignDelegation("alice"),
    SignRecord: SignRecord("alice", (), ()),
    SignPacket: SignPacket("alice", (), ()),
    SignBatch: SignBatch((SignDelegation("alice"), SignRecord("alice", (), ()))),
    SignInvitation: SignInvitation("alice", 1, 1, ("Chat/default",), b"", bytes(16)),
    EnrolReplica: EnrolReplica("alice", bytes(range(32)), "laptop"),
    EndReplica: EndReplica("alice", "laptop"),
    PromoteHome: PromoteHome("alice", "Mail", "default"),
    ClaimHome: ClaimHome("alice", "Mail", "default"),
    AdoptEnrolled: AdoptEnrolled("alice", "desktop"),
    NoteOwner: NoteOwner("alice", b""),
    ListEnrolled: ListEnrolled("alice"),
    SignReplica: SignReplica("alice", bytes(range(32))),
    RecordEvent: RecordEvent("command", {"name": "alice", "allow": ["bob"], "online": True, "pid": 7}),
    Cancel: Cancel(),
}
"""Message of each kind, for a vault that has alice."""


class VaultClock:
    """Time of the vault, which a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class VaultSetup(NamedTuple):
    """Vault without a process."""

    vault: Vault
    server: VaultServer
    clock: VaultClock
    folder: Path

    def request(self, role: str, request: Any) -> Any:
        return self.vault.answer(role, request)


def invitation_of_alice(setup: VaultSetup, **changes: Any) -> SignInvitation:
    """Return a request for an invitation, with a record of alice in it."""
    record = setup.request(NETWORK, SignRecord("alice", (), ("192.0.2.1:1",))).blob
    fields = {"expires": NOW + 60, "uses": 2, "bindings": ("Chat/default",), "record": record, "secret": bytes(16)}
    return SignInvitation("alice", **{**fields, **changes})


STRANGERS = [OWNER, "", "identity-alice", "supervisor", "Gateway", "gateway "]
"""Roles of nobody who may ask the vault."""
