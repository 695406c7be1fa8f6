"""Slots: several ways to unlock one vault, added and removed without a change of any key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastn_p2p_actors.pairing.code import new_code
from fastn_p2p_actors.vault.attempts import FREE_ATTEMPTS
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.messages import LockState
from fastn_p2p_actors.vault.owner_messages import KEY_KINDS, SlotKind
from fastn_p2p_actors.vault.passphrase import Secret
from fastn_p2p_actors.vault.secret_forms import RECOVERY_WORDS
from fastn_p2p_actors.vault.slot_opener import SlotOpener
from fastn_p2p_actors.vault.slots import MAX_SLOTS
from fastn_p2p_client.errors import (
    HomeUnusable,
    InvalidName,
    InvalidPassphrase,
    LastSlot,
    Overloaded,
    PassphraseDelayed,
    SlotExists,
    SlotNotFound,
    VaultNotEncrypted,
    WrongPassphrase,
)
from tests.support.locked_vaults import LockedVault, Opener, delivered

ONE, TWO = b"correct horse", b"battery staple"
CODE = b"apple river stone cloud tiger house music green piano salad table zebra"
KEY = bytes(range(32, 64)).hex().encode()  # fixed: the names of tests contain it


@pytest.fixture
async def vault(opened: Opener) -> LockedVault:
    """Unlocked vault with two identities and the passphrase ``ONE``."""
    made = opened()
    for name in ("alice", "bob"):
        made.store.create(name)
    await made.set_passphrase(ONE)
    return made


def key_files(vault: LockedVault) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in vault.folder.rglob("*.key")}


def names(vault: LockedVault) -> list[str]:
    return [slot.name for slot in vault.lock.status().slots]


async def opens(vault: LockedVault, secret: bytes) -> bool:
    """Return whether the secret unlocks the vault, after locking it."""
    await vault.lock.lock()
    try:
        await vault.unlock(secret)
    except WrongPassphrase:
        await vault.unlock(ONE)
        return False
    assert vault.store.find("alice")
    return True


async def test_each_slot_opens_the_vault_and_no_key_file_changes(vault: LockedVault, opened: Opener) -> None:
    files, alice = key_files(vault), vault.store.find("alice").pair.public
    secrets = {SlotKind.PASSPHRASE: TWO, SlotKind.RECOVERY_CODE: CODE, SlotKind.CREDENTIAL: KEY}
    for kind, secret in secrets.items():
        await vault.add(kind, secret, ONE)
    assert names(vault) == ["passphrase", "passphrase-2", "recovery-code", "credential"]
    assert [slot.kind for slot in vault.lock.status().slots][1:] == [kind.value for kind in secrets]
    assert not vault.store.is_locked
    later = opened()
    for secret in (ONE, *secrets.values()):
        assert await opens(later, secret)
        assert later.store.find("alice").pair.public == alice
    await later.remove("passphrase", CODE)
    await later.remove("recovery-code", KEY)
    assert names(later) == ["passphrase-2", "credential"]
    assert key_files(vault) == files
    last = opened()
    for gone in (ONE, CODE):
        with pytest.raises(WrongPassphrase):
            await last.unlock(gone)
    await last.unlock(KEY)
    assert vault.events.count("slot-added") == 3
    assert later.events.count("slot-removed") == 2


@pytest.mark.parametrize("locked", [True, False])
async def test_a_change_of_slots_neither_unlocks_nor_locks(vault: LockedVault, *, locked: bool) -> None:
    if locked:
        await vault.lock.lock()
    await vault.add(SlotKind.PASSPHRASE, TWO, ONE)
    await vault.remove("passphrase", TWO)
    assert vault.store.is_locked is locked
    await vault.unlock(TWO)


async def test_slot_is_added_only_with_the_secret_of_another(vault: LockedVault) -> None:
    with pytest.raises(InvalidPassphrase):
        await vault.add(SlotKind.PASSPHRASE, TWO, None)
    for kind, secret in ((SlotKind.PASSPHRASE, TWO), (SlotKind.CREDENTIAL, KEY)):
        with pytest.raises(WrongPassphrase):
            await vault.add(kind, secret, b"wrong")
    assert names(vault) == ["passphrase"]


async def test_first_slot_is_a_passphrase(opened: Opener) -> None:
    plain = opened()
    plain.store.create("alice")
    for kind, secret in ((SlotKind.RECOVERY_CODE, CODE), (SlotKind.CREDENTIAL, KEY), (SlotKind.KEYRING, KEY)):
        with pytest.raises(VaultNotEncrypted):
            await plain.add(kind, secret, None)
    with pytest.raises(VaultNotEncrypted):
        await plain.remove("passphrase", ONE)
    await plain.add(SlotKind.PASSPHRASE, ONE, None, "mine")
    assert names(plain) == ["mine"]
    assert plain.lock.lock_state() == LockState(True, False, 0)


@pytest.mark.parametrize(
    "spelling",
    [
        CODE.upper(),
        CODE.replace(b" ", b"-"),
        b"  " + CODE.replace(b" ", b", ") + b" \r\n",
        b" ".join(word[:4] for word in CODE.split()),
    ],
    ids=["upper case", "hyphens", "commas and spaces", "four letters"],
)
async def test_recovery_code_opens_in_any_spelling(vault: LockedVault, spelling: bytes) -> None:
    await vault.add(SlotKind.RECOVERY_CODE, CODE, ONE)
    assert await opens(vault, spelling)
    assert not await opens(vault, CODE.replace(b"zebra", b"apple"))


async def test_random_codes_are_taken(vault: LockedVault) -> None:
    code = new_code(RECOVERY_WORDS).encode()
    await vault.add(SlotKind.RECOVERY_CODE, code, ONE)
    assert await opens(vault, code)


async def test_passphrase_of_twelve_words_is_a_passphrase(vault: LockedVault) -> None:
    await vault.add(SlotKind.PASSPHRASE, CODE, ONE)
    await vault.add(SlotKind.RECOVERY_CODE, CODE.replace(b"zebra", b"apple"), ONE)
    assert await opens(vault, CODE)
    assert not await opens(vault, CODE.upper())


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        (SlotKind.RECOVERY_CODE, CODE.rpartition(b" ")[0]),
        (SlotKind.RECOVERY_CODE, CODE + b" word"),
        (SlotKind.RECOVERY_CODE, CODE.replace(b"zebra", b"z3bra")),
        (SlotKind.CREDENTIAL, KEY[:-1]),
        (SlotKind.CREDENTIAL, b"g" + KEY[1:]),
        (SlotKind.KEYRING, KEY + b"0"),
        (SlotKind.PASSPHRASE, b""),
    ],
    # Workers must find the same tests: the key in what would be their ids is made up at each import.
    ids=["11 words", "13 words", "an unknown word", "63 digits", "a wrong digit", "65 digits", "empty"],
)
async def test_secret_of_the_wrong_form_adds_nothing(vault: LockedVault, kind: SlotKind, secret: bytes) -> None:
    with pytest.raises(InvalidPassphrase):
        await vault.add(kind, secret, ONE)
    assert names(vault) == ["passphrase"]


async def test_names_of_slots(vault: LockedVault) -> None:
    with pytest.raises(SlotExists):
        await vault.add(SlotKind.CREDENTIAL, KEY, ONE, "passphrase")
    for name in ("Passphrase", "../slots", "-x", "x" * 200):
        with pytest.raises(InvalidName):
            await vault.add(SlotKind.CREDENTIAL, KEY, ONE, name)
    await vault.add(SlotKind.CREDENTIAL, KEY, ONE, "server")
    with pytest.raises(SlotNotFound):
        await vault.remove("credential", ONE)
    await vault.remove("server", ONE)
    assert names(vault) == ["passphrase"]


async def test_number_of_slots_is_limited(vault: LockedVault) -> None:
    for _ in range(MAX_SLOTS - 1):
        await vault.add(SlotKind.CREDENTIAL, os.urandom(32).hex().encode(), ONE)
    with pytest.raises(Overloaded):
        await vault.add(SlotKind.CREDENTIAL, KEY, ONE)
    await vault.remove("credential", ONE)
    await vault.add(SlotKind.CREDENTIAL, KEY, ONE)


async def test_new_recovery_code_replaces_the_old_one(vault: LockedVault) -> None:
    await vault.add(SlotKind.RECOVERY_CODE, CODE, ONE, replace=True)
    other = CODE.replace(b"zebra", b"apple")
    await vault.add(SlotKind.RECOVERY_CODE, other, CODE, replace=True)
    assert names(vault) == ["passphrase", "recovery-code"]
    assert await opens(vault, other)
    assert not await opens(vault, CODE)


async def test_recovery_code_sets_a_new_passphrase_for_a_forgotten_one(vault: LockedVault) -> None:
    await vault.add(SlotKind.RECOVERY_CODE, CODE, ONE)
    await vault.set_passphrase(TWO, CODE)
    assert names(vault) == ["recovery-code", "passphrase"]
    with pytest.raises(WrongPassphrase):
        await vault.unlock(ONE)
    await vault.unlock(TWO)


async def test_changed_passphrase_replaces_the_one_that_was_given(vault: LockedVault) -> None:
    await vault.add(SlotKind.PASSPHRASE, TWO, ONE, "work")
    await vault.set_passphrase(b"three", TWO)
    assert sorted(names(vault)) == ["passphrase", "work"]
    assert await opens(vault, b"three")
    assert not await opens(vault, TWO)
    assert await opens(vault, ONE)


# ── the last slot ────────────────────────────────────────────────────────────────────────────────


async def test_slot_is_removed_only_if_another_one_opens(vault: LockedVault) -> None:
    with pytest.raises(LastSlot):
        await vault.remove("passphrase", ONE)
    await vault.add(SlotKind.RECOVERY_CODE, CODE, ONE)
    with pytest.raises(InvalidPassphrase, match="another slot"):
        await vault.remove("passphrase", ONE)
    with pytest.raises(WrongPassphrase):
        await vault.remove("passphrase", CODE.replace(b"zebra", b"apple"))
    assert names(vault) == ["passphrase", "recovery-code"]
    await vault.remove("passphrase", CODE, decrypt=True)  # it is not the last one, so nothing is decrypted
    assert names(vault) == ["recovery-code"]
    with pytest.raises(LastSlot):
        await vault.remove("recovery-code", CODE)


@pytest.mark.parametrize("locked", [True, False])
async def test_removing_the_last_slot_by_decision_decrypts_the_keys(
    vault: LockedVault, opened: Opener, *, locked: bool
) -> None:
    keys = [vault.store.find(name).pair.public for name in ("alice", "bob")]
    transport = vault.store.transport.pair.public
    if locked:
        vault = opened()
    with pytest.raises(WrongPassphrase):
        await vault.remove("passphrase", TWO, decrypt=True)
    assert vault.store.is_locked is locked
    await vault.remove("passphrase", ONE, decrypt=True)
    assert vault.events[-1] == "keys-decrypted"
    assert (vault.lock.lock_state(), names(vault)) == (LockState(False, False, 0), [])
    assert vault.kept[-1] == -1
    for path, content in key_files(vault).items():
        assert json.loads(content[:HEADER_BYTES])["encryption"] == "none", path
    assert not (vault.folder / "slots.json").exists()
    assert not list(vault.folder.rglob(".*"))
    for each in (vault, opened()):
        assert [each.store.find(name).pair.public for name in ("alice", "bob")] == keys
        assert each.store.transport.pair.public == transport
        assert each.store.create("carol" if each is vault else "dave")
    with pytest.raises(VaultNotEncrypted):
        await vault.lock.lock()
    await vault.set_passphrase(TWO)
    assert await opens(vault, TWO)


async def test_damaged_key_stops_the_decryption_before_anything_is_changed(vault: LockedVault) -> None:
    bob = vault.folder / "identities" / "bob.key"
    bob.write_bytes(bob.read_bytes()[:-1])
    files = key_files(vault)
    with pytest.raises(HomeUnusable, match="bob"):
        await vault.remove("passphrase", ONE, decrypt=True)
    assert key_files(vault) == files
    assert not list(vault.folder.rglob(".*"))
    assert await opens(vault, ONE)


async def test_slot_of_a_later_version_stays_and_can_be_removed(vault: LockedVault, opened: Opener) -> None:
    path = vault.folder / "slots.json"
    content = json.loads(path.read_bytes())
    later = {"name": "fido", "kind": "security-key", "created": "2030-01-01T00:00:00Z", "handle": [1, 2]}
    content["slots"].insert(0, later)
    path.write_text(json.dumps(content))
    again = opened()
    await again.add(SlotKind.CREDENTIAL, KEY, ONE)
    await again.set_passphrase(TWO, ONE)
    assert json.loads(path.read_bytes())["slots"][0] == later
    await again.remove("fido", TWO)
    assert names(again) == ["credential", "passphrase"]


# ── wrong secrets ────────────────────────────────────────────────────────────────────────────────


async def test_wrong_secrets_of_every_kind_are_slowed_down_together(vault: LockedVault) -> None:
    for kind, secret in ((SlotKind.RECOVERY_CODE, CODE), (SlotKind.CREDENTIAL, KEY)):
        await vault.add(kind, secret, ONE)
    wrong = [TWO, CODE.replace(b"zebra", b"apple"), KEY[::-1]]
    for number in range(FREE_ATTEMPTS):
        with pytest.raises(WrongPassphrase):
            await vault.unlock(wrong[number % len(wrong)])
    assert vault.lock.status().wait > 0
    for secret in (ONE, CODE, KEY):
        with pytest.raises(PassphraseDelayed):
            await vault.unlock(secret)
        with pytest.raises(PassphraseDelayed):
            await vault.add(SlotKind.PASSPHRASE, TWO, secret)
        with pytest.raises(PassphraseDelayed):
            await vault.remove("credential", secret)
    vault.now += vault.lock.status().wait
    await vault.unlock(CODE)
    assert vault.lock.status().wait == 0


async def test_key_of_a_machine_neither_counts_nor_waits_and_opens_no_other_slot(vault: LockedVault) -> None:
    await vault.add(SlotKind.CREDENTIAL, KEY, ONE)
    for _ in range(FREE_ATTEMPTS):
        with pytest.raises(WrongPassphrase):
            await vault.unlock(TWO)
    opener = SlotOpener(vault.lock.slots, vault.lock._attempts)
    for secret in (ONE, CODE, KEY[::-1]):
        with delivered(secret) as descriptor, Secret() as held:
            held.read(descriptor)
            with pytest.raises(WrongPassphrase):
                opener.open_by_machine(held)
    wait = vault.lock.status().wait
    with delivered(KEY) as descriptor, Secret() as held:
        held.read(descriptor)
        opened = opener.open_by_machine(held)
        assert (opened.slot.kind, opened.page.is_filled) == (SlotKind.CREDENTIAL, True)
        opened.page.wipe()
    assert 0 < vault.lock.status().wait <= wait


async def test_every_changed_byte_of_a_slot_closes_it(vault: LockedVault, opened: Opener) -> None:
    secrets = {SlotKind.RECOVERY_CODE: CODE, SlotKind.CREDENTIAL: KEY}
    for kind, secret in secrets.items():
        await vault.add(kind, secret, ONE)
    path = vault.folder / "slots.json"
    good = json.loads(path.read_bytes())
    for index, secret in enumerate(secrets.values(), 1):
        for field, value in {"sealed": None, "salt": None, "passes": 2, "memory": 16384, "name": "x"}.items():
            slot = dict(good["slots"][index])
            old = slot[field]
            slot[field] = f"{int(old[0], 16) ^ 1:x}{old[1:]}" if value is None else value
            path.write_text(json.dumps({"format": 1, "slots": [slot]}))
            with pytest.raises(WrongPassphrase):
                await opened().unlock(secret)
            (vault.folder / "attempts.json").unlink()


async def test_slot_cannot_be_passed_off_as_one_of_another_kind(vault: LockedVault, opened: Opener) -> None:
    await vault.add(SlotKind.CREDENTIAL, KEY, ONE)
    path = vault.folder / "slots.json"
    good = json.loads(path.read_bytes())
    for kind in {*SlotKind} - {SlotKind.CREDENTIAL}:
        path.write_text(json.dumps({"format": 1, "slots": [{**good["slots"][1], "kind": kind.value}]}))
        with pytest.raises(WrongPassphrase):
            await opened().unlock(KEY)
        (vault.folder / "attempts.json").unlink()


def test_keys_of_machines_are_the_only_ones_without_a_cost() -> None:
    assert set(KEY_KINDS) == {SlotKind.CREDENTIAL, SlotKind.KEYRING}
