"""Replies of a vault that is locked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.credentials import peek_record
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK, ROLES, TABLE, VaultState
from fastn_p2p_actors.vault.messages import (
    ClaimHome,
    CreateKey,
    EndpointKey,
    EnrolledReplicas,
    GetEndpoint,
    GetLockState,
    GetTransport,
    ListEnrolled,
    ListRevokedKeys,
    LockState,
    NoteOwner,
    PromoteHome,
    RecordEvent,
    RevokedKeys,
    SignBatch,
    SignDelegation,
    SignedBatch,
    SignedDelegation,
    SignedRecord,
    SignedRecordPacket,
    SignPacket,
    SignRecord,
    TransportKey,
    VaultRequest,
)
from fastn_p2p_actors.vault.vault import DELEGATION_SECONDS, Vault
from fastn_p2p_client.errors import BindingNotFound, Forbidden, VaultLocked
from fastn_p2p_client.ipc.messages import Ack, Cancel
from tests.support.locked_vaults import LockedVault
from tests.support.vault_setup import REQUESTS, STRANGERS


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[tuple[Vault, LockedVault]]:
    """Vault with alice that was used, encrypted and locked."""
    parts = LockedVault(tmp_path / "vault")
    vault = Vault(parts.store, parts.clock, lock=parts.lock)
    vault.answer(GATEWAY, CreateKey("alice"))
    await parts.set_passphrase(b"one")
    for kind in (SignDelegation, SignRecord, SignPacket):
        vault.answer(NETWORK, cast(VaultRequest, REQUESTS[kind]))
    await parts.lock.lock()
    yield vault, parts
    parts.close()


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_every_cell_of_the_table_while_the_vault_is_locked(
    locked: tuple[Vault, LockedVault], kind: type[msgspec.Struct], role: str
) -> None:
    vault, parts = locked
    before = {path: path.read_bytes() for path in parts.folder.rglob("*") if path.is_file()}
    request = cast(VaultRequest, REQUESTS[kind])
    assert vault.state is VaultState.LOCKED
    if role in TABLE[kind][VaultState.LOCKED]:
        if kind is PromoteHome:
            with pytest.raises(BindingNotFound):
                vault.answer(role, request)
            return
        reply = vault.answer(role, request)
        expected: dict[type[Any], type[Any]] = {
            GetLockState: LockState,
            GetTransport: TransportKey,
            SignDelegation: SignedDelegation,
            SignRecord: SignedRecord,
            SignPacket: SignedRecordPacket,
            SignBatch: SignedBatch,
            ListRevokedKeys: RevokedKeys,
            ListEnrolled: EnrolledReplicas,
            ClaimHome: EnrolledReplicas,
            NoteOwner: EnrolledReplicas,
            GetEndpoint: EndpointKey,
            RecordEvent: Ack,
            Cancel: type(None),
        }
        assert type(reply) is expected[kind]
    else:
        would_be_allowed = role in TABLE[kind][VaultState.OPEN]
        with pytest.raises(VaultLocked if would_be_allowed else Forbidden):
            vault.answer(role, request)
    after = {path: path.read_bytes() for path in parts.folder.rglob("*") if path.is_file()}
    if kind is not ClaimHome:  # a home needs no key
        assert after == before


async def test_locked_vault_repeats_what_it_has_signed_until_that_expires(locked: tuple[Vault, LockedVault]) -> None:
    vault, parts = locked
    requests: list[VaultRequest] = [
        SignDelegation("alice"),
        SignRecord("alice", (), ("192.0.2.1:1",)),
        SignPacket("alice", (), ()),
    ]
    first = [vault.answer(NETWORK, request) for request in requests]
    parts.now += 3600
    assert [vault.answer(NETWORK, request) for request in requests] == first
    refusals: list[VaultRequest] = [SignDelegation("bob"), SignPacket("alice", (), (), withdrawn=True)]
    for refused in refusals:
        with pytest.raises(VaultLocked):
            vault.answer(NETWORK, refused)
    await parts.unlock(b"one")
    renewed = [vault.answer(NETWORK, request) for request in requests]
    assert all(new != old for new, old in zip(renewed, first, strict=True))
    await parts.lock.lock()
    assert vault.answer(NETWORK, requests[0]) == renewed[0]
    parts.now += DELEGATION_SECONDS
    for request in requests:
        with pytest.raises(VaultLocked, match="fastn-p2p vault unlock"):
            vault.answer(NETWORK, request)


@pytest.mark.parametrize("kind", [SignRecord, SignPacket])
async def test_locked_vault_repeats_the_delegation_of_the_last_record(
    locked: tuple[Vault, LockedVault], kind: type[SignRecord]
) -> None:
    """An identity that was asleep, or whose record was renewed, has had no other since."""
    vault, parts = locked
    await parts.unlock(b"one")
    parts.now += DELEGATION_SECONDS - 60
    signed: Any = vault.answer(NETWORK, kind("alice", (), ("192.0.2.1:1",)))
    (own,) = peek_record(signed.blob if kind is SignRecord else signed.record).endpoints
    await parts.lock.lock()
    parts.now += 3600
    reply = vault.answer(NETWORK, SignDelegation("alice"))
    assert isinstance(reply, SignedDelegation)
    assert reply.blob == own.delegation
    parts.now += DELEGATION_SECONDS
    with pytest.raises(VaultLocked):
        vault.answer(NETWORK, SignDelegation("alice"))


async def test_vault_that_starts_locked_gives_nothing_away(locked: tuple[Vault, LockedVault]) -> None:
    _, parts = locked
    again = LockedVault(parts.folder)
    try:
        vault = Vault(again.store, again.clock, lock=again.lock)
        for request in (REQUESTS[kind] for kind in (GetTransport, SignDelegation, SignRecord, SignPacket)):
            with pytest.raises(VaultLocked):
                vault.answer(NETWORK, cast(VaultRequest, request))
        assert vault.answer(GATEWAY, GetLockState()) == LockState(True, True, 0)
    finally:
        again.close()
