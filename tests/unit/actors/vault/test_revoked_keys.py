"""A revoked key signs its revocation and nothing else, also after interruptions of the vault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_actors.credentials import pkarr, read_revocation
from fastn_p2p_actors.credentials.record_packet import record_in
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.messages import (
    PAGE,
    CreateKey,
    DeleteKey,
    IdentityKey,
    ListRevokedKeys,
    RevokedKey,
    RevokedKeys,
    RevokeKey,
    SignDelegation,
    SignedDelegation,
    SignPacket,
    SignRecord,
)
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.errors import BadMessage, HomeUnusable, IdentityNotFound, IdentityRevoked, StorageFailed
from tests.support.signer import NOW, Signer

BOB = Signer("bob")
SIGNING = (SignDelegation("alice"), SignRecord("alice", (), ()), SignPacket("alice", (), (), withdrawn=True))


class Setup:
    """Vault of a directory. ``again`` is the vault after a restart."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "vault" / "identities" / "alice.revoked"
        self._folder = folder / "vault"
        self._memories: list[LockedMemory] = []
        self.events: list[tuple[object, ...]] = []
        self.now = float(NOW)
        self.vault = self.again()
        self.alice: IdentityKey = self.ask(CreateKey("alice"))

    def again(self) -> Vault:
        memory = LockedMemory()
        self._memories.append(memory)
        store = KeyStore(self._folder, memory, lambda: self.now)
        store.open()
        self.vault = Vault(store, lambda: self.now, lambda *event: self.events.append(event))
        return self.vault

    def ask(self, request: Any) -> Any:
        return self.vault.answer(NETWORK if request in SIGNING else GATEWAY, request)

    def close(self) -> None:
        for memory in self._memories:
            memory.wipe()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.close()


def test_revoked_key_signs_its_revocation_and_nothing_else(setup: Setup) -> None:
    revoked: RevokedKey = setup.ask(RevokeKey("alice", bytes(BOB.key)))
    revocation = read_revocation(revoked.revocation)
    assert (revocation.identity, revocation.issued, revocation.successor) == (setup.alice.public, NOW, bytes(BOB.key))
    packet = pkarr.read_signed_packet(setup.alice.public, revoked.packet)
    assert packet.sequence == pkarr.MAX_SEQUENCE
    assert record_in(packet) == revoked.revocation
    for request in SIGNING:
        with pytest.raises(IdentityRevoked, match="alice was revoked on 2027-01-15"):
            setup.ask(request)
    assert setup.file.stat().st_mode & 0o777 == 0o600
    assert setup.events[-1][:2] == (("vault", "key-revoked"))


def test_first_revocation_stays(setup: Setup) -> None:
    first = setup.ask(RevokeKey("alice"))
    setup.now += 1000
    assert setup.ask(RevokeKey("alice", bytes(BOB.key))) == first
    setup.again()
    assert setup.ask(RevokeKey("alice")) == first
    assert setup.ask(ListRevokedKeys()).keys == (first,)


def test_interrupted_revocation_has_no_effect_before_its_file_is_there(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the file is under another name, which the next start deletes."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailed):
            setup.ask(RevokeKey("alice"))
    setup.file.with_name(".alice.revoked.0123.tmp").write_bytes(b'{"format":1,"revoca')
    setup.again()
    assert [path.name for path in setup.file.parent.iterdir()] == ["alice.key"]
    assert isinstance(setup.ask(SignDelegation("alice")), SignedDelegation)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"format":2,"revocation":"","packet":""}', b"\xff"])
def test_key_with_a_damaged_revocation_signs_nothing(setup: Setup, damage: bytes) -> None:
    setup.file.write_bytes(damage)
    for request in (*SIGNING, RevokeKey("alice")):
        with pytest.raises(HomeUnusable, match=r"alice\.revoked"):
            setup.ask(request)
    found: RevokedKeys = setup.ask(ListRevokedKeys())
    assert found.keys == ()
    assert "alice.revoked" in found.damaged[0]


@pytest.mark.parametrize("successor", [b"short", bytes(32)])
def test_successor_that_is_no_key(setup: Setup, successor: bytes) -> None:
    with pytest.raises(BadMessage):
        setup.ask(RevokeKey("alice", successor))
    with pytest.raises(BadMessage):
        setup.ask(RevokeKey("alice", setup.alice.public))
    assert not setup.file.exists()


def test_unknown_identity(setup: Setup) -> None:
    with pytest.raises(IdentityNotFound):
        setup.ask(RevokeKey("bob"))


def test_deleted_identity_takes_its_revocation_along(setup: Setup) -> None:
    setup.ask(RevokeKey("alice"))
    setup.ask(DeleteKey("alice"))
    assert not setup.file.exists()
    with pytest.raises(IdentityNotFound):
        setup.ask(DeleteKey("alice"))
    setup.ask(CreateKey("alice"))
    setup.ask(SignDelegation("alice"))


def test_deletion_that_was_interrupted_can_be_repeated(setup: Setup) -> None:
    setup.ask(RevokeKey("alice"))
    setup.file.with_name("alice.key").unlink()
    setup.again()
    setup.ask(DeleteKey("alice"))
    assert not setup.file.exists()


def test_new_identity_has_no_revocation_of_an_earlier_one(setup: Setup) -> None:
    setup.ask(RevokeKey("alice"))
    setup.file.with_name("alice.key").unlink()
    setup.again()
    setup.ask(CreateKey("alice"))
    setup.ask(SignDelegation("alice"))  # does not raise IdentityRevoked


def test_pages(setup: Setup) -> None:
    setup.ask(RevokeKey("alice"))
    saved = setup.file.read_bytes()
    for number in range(PAGE):
        setup.file.with_name(f"b{number:03}.revoked").write_bytes(saved)
    page: RevokedKeys = setup.ask(ListRevokedKeys())
    assert (len(page.keys), page.more, page.last) == (PAGE, True, f"b{PAGE - 2:03}")
    page = setup.ask(ListRevokedKeys(page.last))
    assert (len(page.keys), page.more) == (1, False)
