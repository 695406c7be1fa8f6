"""Rotation of the transport key: a crash leaves the old key or the new one, and nothing is signed for the old one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fastn_p2p_actors.credentials.delegation import peek_delegation
from fastn_p2p_actors.credentials.peer_record import peek_record
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.messages import (
    EndpointKey,
    GetEndpoint,
    GetTransport,
    RotateTransportKey,
    SignDelegation,
    SignedDelegation,
    SignedRecord,
    SignRecord,
    TransportKey,
)
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.errors import VaultLocked
from tests.support.killed_takeover import ONE, STEPS, WRITES, Killed, killer
from tests.support.locked_vaults import LockedVault


@pytest.fixture(scope="module")
def until_killed() -> Iterator[Killed]:
    with killer() as change:
        yield change


def transport_of(folder: Path) -> tuple[int, bytes]:
    """Return epoch and public key after the vault's next start, unlocked if it is encrypted."""
    vault = LockedVault(folder)
    try:
        if vault.store.is_locked:
            asyncio.run(vault.unlock(ONE))
        key = vault.store.transport
        return key.header.epoch, key.pair.public
    finally:
        vault.close()


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize(("functions", "written"), [(STEPS, 0), (WRITES, HEADER_BYTES + 10)], ids=["steps", "part"])
def test_killed_at_any_step_the_home_has_the_old_key_or_the_new_one(
    tmp_path: Path, until_killed: Killed, functions: Sequence[str], written: int, sealed: bool
) -> None:
    before = tmp_path / "before"
    vault = LockedVault(before)
    if sealed:
        asyncio.run(vault.set_passphrase(ONE))
    vault.close()
    old = transport_of(before)
    seed = (before / "transport.key").read_bytes()[HEADER_BYTES:]
    epochs: list[int] = []
    killed = True
    while killed:
        folder = tmp_path / str(len(epochs))
        shutil.copytree(before, folder)
        killed = until_killed("rotate", folder, functions, len(epochs) + 1, written)
        epoch, public = transport_of(folder)
        assert (public == old[1]) == (epoch == 1)
        left = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        assert sum(seed in content for content in left) == (1 if epoch == 1 else 0), (
            "the old key is gone with the change"
        )
        assert not list(folder.rglob(".*")), "something is left of the interrupted change"
        epochs.append(epoch)
    assert epochs == sorted(epochs)
    assert (epochs[0], epochs[-1]) == (1, 2)
    assert len(epochs) >= (2 if functions is WRITES else 8)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[LockedVault]:
    vault = LockedVault(tmp_path / "vault")
    vault.store.create("alice")
    yield vault
    vault.close()


def test_delegations_and_records_name_the_new_endpoint_and_never_the_old_one(vault: LockedVault) -> None:
    events: list[tuple[object, ...]] = []
    answer = Vault(vault.store, vault.clock, lambda *event: events.append(event)).answer
    before = answer(NETWORK, GetTransport())
    earlier = answer(NETWORK, SignRecord("alice", (), ("192.0.2.1:1",)))
    assert isinstance(before, TransportKey)
    assert isinstance(earlier, SignedRecord)
    new = answer(GATEWAY, RotateTransportKey())
    assert isinstance(new, EndpointKey)
    assert (new.epoch, new.public == before.public) == (2, False)
    assert answer(GATEWAY, GetEndpoint()) == new
    assert events[-1][1:] == ("transport-rotated", {"endpoint": new.public.hex(), "epoch": 2, "for": GATEWAY})
    given = answer(NETWORK, GetTransport())
    assert isinstance(given, TransportKey)
    assert (given.public, given.epoch, given.lineage) == (new.public, 2, before.lineage)
    signed = answer(NETWORK, SignDelegation("alice"))
    assert isinstance(signed, SignedDelegation)
    delegation = peek_delegation(signed.blob)
    assert (delegation.endpoint, delegation.epoch, delegation.lineage) == (new.public, 2, before.lineage)
    vault.now += 1
    others = peek_record(earlier.blob).endpoints
    record = answer(NETWORK, SignRecord("alice", (), (), others))
    assert isinstance(record, SignedRecord)
    assert [peek_delegation(each.delegation).endpoint for each in peek_record(record.blob).endpoints] == [new.public]


async def test_a_locked_vault_rotates_nothing_and_repeats_nothing_of_the_old_key(vault: LockedVault) -> None:
    answer = Vault(vault.store, vault.clock).answer
    await vault.set_passphrase(ONE)
    answer(NETWORK, SignDelegation("alice"))
    answer(GATEWAY, RotateTransportKey())
    await vault.lock.lock()
    with pytest.raises(VaultLocked):
        answer(NETWORK, SignDelegation("alice"))
    with pytest.raises(VaultLocked, match="rotating the transport key"):
        answer(GATEWAY, RotateTransportKey())
    assert isinstance(answer(GATEWAY, GetEndpoint()), EndpointKey), "its public part is no secret"
