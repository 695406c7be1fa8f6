"""Lock of the keys: passphrases, files, time limits, the page that outlives a process, wrong passphrases."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from fastn_p2p_actors.credentials.sodium import lib
from fastn_p2p_actors.runtime.process_setup import boot_ms
from fastn_p2p_actors.vault import key_lock
from fastn_p2p_actors.vault.attempts import FREE_ATTEMPTS, MAX_DELAY
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.messages import LockState
from fastn_p2p_actors.vault.passphrase import MAX_PASSPHRASE, PRODUCT_COST
from fastn_p2p_actors.vault.secret_page import SecretPage
from fastn_p2p_client.errors import (
    HomeUnusable,
    InvalidPassphrase,
    PassphraseDelayed,
    VaultLocked,
    VaultNotEncrypted,
    WrongPassphrase,
)
from tests.support.locked_vaults import LockedVault, Opener

NAMES = ["alice", "bob", "carol"]


@pytest.fixture
def plain(opened: Opener) -> LockedVault:
    """Vault with three identities and no passphrase."""
    vault = opened()
    for name in NAMES:
        vault.store.create(name)
    return vault


def public_keys(vault: LockedVault) -> list[bytes]:
    return [vault.store.transport.pair.public, *(vault.store.find(name).pair.public for name in NAMES)]


def plain_seeds(folder: Path) -> list[bytes]:
    """Return the seeds that are on disk in the clear."""
    return [
        path.read_bytes()[HEADER_BYTES:]
        for path in folder.rglob("*.key")
        if json.loads(path.read_bytes()[:HEADER_BYTES])["encryption"] == "none"
    ]


async def test_passphrase_encrypts_every_file_and_only_it_opens_them_again(plain: LockedVault, opened: Opener) -> None:
    keys, seeds = public_keys(plain), plain_seeds(plain.folder)
    assert len(seeds) == 4
    await plain.set_passphrase(b"correct horse\n")
    assert public_keys(plain) == keys
    assert plain.lock.lock_state() == LockState(True, False, 0)
    on_disk = [path.read_bytes() for path in plain.folder.rglob("*") if path.is_file()]
    assert not any(seed in content for seed in seeds for content in on_disk)
    assert not list(plain.folder.rglob(".*"))

    later = opened()
    assert later.lock.lock_state() == LockState(True, True, 0)
    with pytest.raises(WrongPassphrase):
        await later.unlock(b"correct hors\n")
    assert later.store.is_locked
    await later.unlock(b"correct horse\n")
    assert public_keys(later) == keys
    assert later.events == ["passphrase-wrong", "vault-unlocked"]


async def test_new_identity_of_an_encrypted_vault_is_never_on_disk_in_the_clear(plain: LockedVault) -> None:
    await plain.set_passphrase(b"one")
    dave = plain.store.create("dave")
    assert plain_seeds(plain.folder) == []
    await plain.lock.lock()
    await plain.unlock(b"one")
    assert plain.store.find("dave").pair.public == dave.pair.public


async def test_transport_key_that_is_rotated_after_the_passphrase_was_set_opens_again(
    plain: LockedVault, opened: Opener
) -> None:
    await plain.set_passphrase(b"one")
    rotated = plain.store.rotate_transport().pair.public
    later = opened()
    await later.unlock(b"one")
    assert later.store.transport.pair.public == rotated


async def test_passphrase_is_changed_only_with_the_present_one(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    sealed = {path: path.read_bytes() for path in plain.folder.rglob("*.key")}
    with pytest.raises(InvalidPassphrase):
        await plain.set_passphrase(b"two")
    with pytest.raises(WrongPassphrase):
        await plain.set_passphrase(b"two", b"three")
    await plain.set_passphrase(b"two", b"one")
    assert {path: path.read_bytes() for path in plain.folder.rglob("*.key")} == sealed
    later = opened()
    with pytest.raises(WrongPassphrase):
        await later.unlock(b"one")
    await later.unlock(b"two")


async def test_passphrase_can_be_changed_while_the_vault_is_locked_and_does_not_open_it(plain: LockedVault) -> None:
    await plain.set_passphrase(b"one")
    await plain.lock.lock()
    await plain.set_passphrase(b"two", b"one")
    assert plain.store.is_locked
    await plain.unlock(b"two")


async def test_locked_vault_uses_no_key_and_keeps_the_transport_key(plain: LockedVault) -> None:
    await plain.set_passphrase(b"one")
    transport = plain.store.transport
    await plain.lock.lock()
    for use in (plain.store.find, plain.store.create, plain.store.delete):
        with pytest.raises(VaultLocked):
            use("alice")
    with pytest.raises(VaultLocked):
        plain.store.page("", 10)
    assert plain.store.transport is transport
    assert plain.kept[-1] == -1


async def test_vault_without_a_passphrase_cannot_be_locked_or_unlocked(plain: LockedVault) -> None:
    with pytest.raises(VaultNotEncrypted):
        await plain.lock.lock()
    with pytest.raises(VaultNotEncrypted):
        await plain.unlock(b"one")
    assert plain.lock.lock_state() == LockState(False, False, 0)
    assert plain.lock.status().slots == ()


# ── the page with the master key ─────────────────────────────────────────────────────────────────


async def test_next_process_with_the_kept_page_is_open(plain: LockedVault, opened: Opener) -> None:
    keys = public_keys(plain)
    await plain.set_passphrase(b"one")
    (kept,) = plain.kept
    plain.close()
    later = opened(os.dup(kept))
    assert public_keys(later) == keys
    await later.lock.lock()
    again = opened(os.dup(kept))
    assert again.store.is_locked  # locking wipes the page for everyone who has it
    assert again.kept == [-1]


async def test_page_of_another_vault_opens_nothing(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    page = SecretPage.create()
    lib.randombytes(page.pointer, 32)
    page.mark_filled()
    later = opened(page.descriptor)
    assert later.store.is_locked
    await later.unlock(b"one")


async def test_vault_locks_itself_at_its_time(plain: LockedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_lock, "_CHECK_SECONDS", 0.01)
    await plain.set_passphrase(b"one")
    await plain.lock.lock()
    await plain.unlock(b"one", seconds=1000)
    assert plain.now < plain.lock.status().until <= plain.now + 1000
    page = plain.lock._page
    assert page is not None
    page.deadline_ms = boot_ms()  # as if the time had passed
    released = asyncio.Event()
    monkeypatch.setattr(plain.lock, "_keep", lambda _: released.set())
    async with asyncio.timeout(60):
        await released.wait()
    assert plain.store.is_locked
    assert plain.events[-1] == "vault-locked"


async def test_unlocking_again_sets_and_removes_the_time(plain: LockedVault) -> None:
    await plain.set_passphrase(b"one")
    await plain.unlock(b"one", seconds=3600)
    assert plain.lock.status().until > plain.now
    await plain.unlock(b"one")
    assert (plain.lock.status().until, plain.store.is_locked) == (0, False)
    with pytest.raises(WrongPassphrase):
        await plain.unlock(b"two")
    assert not plain.store.is_locked


async def test_kept_page_whose_time_is_over_opens_nothing(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    kept = SecretPage(os.dup(plain.kept[0]))
    kept.deadline_ms = 1
    plain.close()
    assert opened(kept.descriptor).store.is_locked


# ── passphrases ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "same"),
    [
        (b"pass phrase", b"pass phrase\n"),
        (b"pass phrase\r\n", b"pass phrase\nsecond line\n"),
        (" pässphräse\t\n".encode(), " pässphräse\t".encode()),
        (b"\xff\x00\xfe\n", b"\xff\x00\xfe"),
        (b"x" * MAX_PASSPHRASE, b"x" * MAX_PASSPHRASE + b"\n"),
    ],
    ids=["no line break", "windows", "spaces and umlauts", "bytes", "longest"],
)
async def test_passphrase_is_the_bytes_of_the_first_line(plain: LockedVault, content: bytes, same: bytes) -> None:
    await plain.set_passphrase(content)
    await plain.lock.lock()
    with pytest.raises(WrongPassphrase):
        await plain.unlock(same.split(b"\n")[0].rstrip(b"\r") + b"x" if len(same) < 100 else b"x")
    await plain.unlock(same)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\nsecond", b"x" * (MAX_PASSPHRASE + 1)])
async def test_unusable_passphrase_changes_nothing(plain: LockedVault, content: bytes) -> None:
    with pytest.raises(InvalidPassphrase):
        await plain.set_passphrase(content)
    assert len(plain_seeds(plain.folder)) == 4
    assert not (plain.folder / "slots.json").exists()
    assert plain.lock.lock_state() == LockState(False, False, 0)


async def test_wrong_passphrases_have_to_wait_longer_and_longer(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    vault = opened()
    waits = []
    for _ in range(FREE_ATTEMPTS + 10):
        with pytest.raises(WrongPassphrase):
            await vault.unlock(b"two")
        waits.append(vault.lock.status().wait)
        if waits[-1]:
            with pytest.raises(PassphraseDelayed):
                await vault.unlock(b"one")  # also the right one: nothing is tried
        vault.now += waits[-1]
    assert waits[: FREE_ATTEMPTS - 1] == [0] * (FREE_ATTEMPTS - 1)
    assert waits == sorted(waits)
    assert waits[-1] == MAX_DELAY + 1
    vault.now -= waits[-1]
    later = opened()
    later.now = vault.now
    with pytest.raises(PassphraseDelayed):  # a restart does not help
        await later.unlock(b"one")
    later.now += MAX_DELAY + 1
    await later.unlock(b"one")
    assert later.lock.status().wait == 0
    with pytest.raises(WrongPassphrase):
        await later.unlock(b"two")
    assert later.lock.status().wait == 0


def test_product_uses_at_least_256_mib_for_a_passphrase() -> None:
    assert PRODUCT_COST.memory >= 256 * 1024 * 1024
    assert PRODUCT_COST.passes >= 3


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format":2,"slots":[{}]}', b'{"format":1,"slots":[]}', b"\xff"])
async def test_damaged_file_of_slots_is_named(plain: LockedVault, opened: Opener, content: bytes) -> None:
    await plain.set_passphrase(b"one")
    (plain.folder / "slots.json").write_bytes(content)
    with pytest.raises(HomeUnusable, match=r"slots\.json"):
        opened()


async def test_every_changed_byte_of_a_slot_closes_it(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    slots = plain.folder / "slots.json"
    good = json.loads(slots.read_bytes())
    changes = {"sealed": "00", "salt": "00", "passes": 2, "memory": 16384, "name": "x", "kind": "y"}
    for field, value in changes.items():
        slot = dict(good["slots"][0])
        slot[field] = value + slot[field][2:] if isinstance(value, str) and field in ("sealed", "salt") else value
        if slot == good["slots"][0]:
            slot[field] = "ff" + slot[field][2:]
        slots.write_text(json.dumps({"format": 1, "slots": [slot]}))
        with pytest.raises(WrongPassphrase):
            await opened().unlock(b"one")
        (plain.folder / "attempts.json").unlink()
    slots.write_text(json.dumps(good))
    await opened().unlock(b"one")


async def test_slot_with_absurd_cost_is_not_tried(plain: LockedVault, opened: Opener) -> None:
    await plain.set_passphrase(b"one")
    slots = plain.folder / "slots.json"
    content = json.loads(slots.read_bytes())
    content["slots"][0]["memory"] = 1 << 50
    slots.write_text(json.dumps(content))
    with pytest.raises(WrongPassphrase):
        await opened().unlock(b"one")


async def test_damaged_key_stops_the_encryption_before_anything_is_changed(plain: LockedVault) -> None:
    bob = plain.folder / "identities" / "bob.key"
    bob.write_bytes(bob.read_bytes()[:-1])
    with pytest.raises(HomeUnusable, match="bob"):
        await plain.set_passphrase(b"one")
    assert len(plain_seeds(plain.folder)) == 4
    assert not (plain.folder / "slots.json").exists()
    assert not list(plain.folder.rglob(".*"))
    assert plain.store.find("alice")


async def test_encrypted_key_moves_to_another_home_with_its_slots(plain: LockedVault, tmp_path: Path) -> None:
    await plain.set_passphrase(b"one")
    other = tmp_path / "other"
    LockedVault(other).close()
    for name in ("slots.json", "identities/alice.key"):
        (other / name).write_bytes((plain.folder / name).read_bytes())
        (other / name).chmod(0o600)
    moved = LockedVault(other)
    await moved.unlock(b"one")
    assert moved.store.find("alice").pair.public == plain.store.find("alice").pair.public
    assert moved.store.transport.pair.public != plain.store.transport.pair.public
    assert plain_seeds(other) == []
    moved.close()


async def test_damaged_sealed_key_affects_no_other(plain: LockedVault) -> None:
    await plain.set_passphrase(b"one")
    await plain.lock.lock()
    bob = plain.folder / "identities" / "bob.key"
    content = bytearray(bob.read_bytes())
    content[-1] ^= 1
    bob.write_bytes(content)
    await plain.unlock(b"one")
    page = plain.store.page("", 10)
    assert [key.header.name for key in page.keys] == ["alice", "carol"]
    assert "bob.key" in str(page.damaged[0])
