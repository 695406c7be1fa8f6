"""Changes of the key files and slots, killed at every step: no key is lost, and the next unlock finishes it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.owner_messages import SlotKind
from fastn_p2p_client.errors import WrongPassphrase
from tests.support.killed_takeover import ONE, STEPS, TWO, WRITES, Killed, killer
from tests.support.locked_vaults import LockedVault

LONGEST: Final = 700
"""More bytes than a file of the vault has."""


@pytest.fixture(scope="module")
def until_killed() -> Iterator[Killed]:
    with killer() as change:
        yield change


def plain_home(folder: Path) -> list[bytes]:
    """Create the keys of a vault without a passphrase, and return the public ones."""
    vault = LockedVault(folder)
    vault.store.create("alice")
    vault.close()
    return keys_of(folder)


def keys_of(folder: Path) -> list[bytes]:
    """Return the public keys of a vault after its next start, unlocked if it is encrypted."""
    vault = LockedVault(folder)
    try:
        if vault.store.is_locked:
            asyncio.run(vault.unlock(ONE))
        return public_keys(vault)
    finally:
        vault.close()


def public_keys(vault: LockedVault) -> list[bytes]:
    return [vault.store.transport.pair.public, vault.store.find("alice").pair.public]


@pytest.mark.parametrize(
    ("functions", "written"), [(STEPS, 0), (WRITES, 1), (WRITES, HEADER_BYTES + 40)], ids=["steps", "begun", "part"]
)
def test_killed_at_any_step_no_key_is_lost_and_the_next_unlock_finishes(
    tmp_path: Path, until_killed: Killed, functions: Sequence[str], written: int
) -> None:
    before = tmp_path / "before"
    keys = plain_home(before)
    seeds = [path.read_bytes()[HEADER_BYTES:] for path in before.rglob("*.key")]
    states: list[bool] = []
    killed = True
    while killed:
        folder = tmp_path / str(len(states))
        shutil.copytree(before, folder)
        killed = until_killed("encrypt", folder, functions, len(states) + 1, written)
        encrypted = (folder / "slots.json").exists()
        states.append(encrypted)
        assert keys_of(folder) == keys
        left = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        assert sum(seed in content for seed in seeds for content in left) == (0 if encrypted else len(seeds))
        assert not list(folder.rglob(".*")), "something is left of the interrupted change"
        assert keys_of(folder) == keys
    assert states == sorted(states)
    assert (states[0], states[-1]) == (False, True)
    assert len(states) >= (5 if functions is WRITES else 37)


def test_killed_at_any_byte_of_any_file_no_key_is_lost(tmp_path: Path, until_killed: Killed) -> None:
    """Each write is cut at every seventeenth byte."""
    before, folder = tmp_path / "before", tmp_path / "vault"
    keys = plain_home(before)
    killed, number = True, 0
    while killed:
        number += 1
        for written in range(0, LONGEST, 17):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(before, folder)
            killed = until_killed("encrypt", folder, WRITES, number, written)
            longest = max(len(path.read_bytes()) for path in folder.rglob("*") if path.is_file())
            assert longest < LONGEST
            assert keys_of(folder) == keys
            assert not list(folder.rglob(".*")), "something is left of the interrupted change"
            if not killed:
                break
    assert number > 3


def encrypted_home(folder: Path, *, slots: int) -> list[bytes]:
    """Create the keys of a vault with one passphrase or two, and return the public ones."""
    keys = plain_home(folder)
    vault = LockedVault(folder)
    asyncio.run(vault.set_passphrase(ONE))
    if slots == 2:
        asyncio.run(vault.add(SlotKind.PASSPHRASE, TWO, ONE))
    vault.close()
    return keys


def opening(folder: Path, keys: list[bytes]) -> set[bytes]:
    """Return the passphrases that open the vault in its next process, and find its keys."""
    vault = LockedVault(folder)
    found = set()
    try:
        for secret in (ONE, TWO):
            with suppress(WrongPassphrase):
                asyncio.run(vault.unlock(secret))
                assert public_keys(vault) == keys
                found.add(secret)
    finally:
        vault.close()
    return found


def killed_states(
    until_killed: Killed, change: str, before: Path, functions: Sequence[str], written: int
) -> Iterator[Path]:
    """Yield a copy of the vault for each step at which the change was killed, and at the end one where it was not."""
    number, killed = 0, True
    while killed:
        number += 1
        folder = before.with_name(f"{change}-{number}")
        shutil.copytree(before, folder)
        killed = until_killed(change, folder, functions, number, written)
        yield folder


@pytest.mark.parametrize(
    ("change", "slots", "first", "last", "functions"),
    [
        ("add", 1, {ONE}, {ONE, TWO}, STEPS),
        ("change", 1, {ONE}, {TWO}, WRITES),
        ("remove", 2, {ONE, TWO}, {TWO}, STEPS),
        ("remove", 2, {ONE, TWO}, {TWO}, WRITES),
    ],
    ids=["add", "change, write", "remove", "remove, write"],
)
def test_change_of_slots_killed_at_any_step_is_made_or_not_made(
    tmp_path: Path,
    until_killed: Killed,
    change: str,
    slots: int,
    first: set[bytes],
    last: set[bytes],
    functions: Sequence[str],
) -> None:
    before = tmp_path / "before"
    keys = encrypted_home(before, slots=slots)
    files = {path.name: path.read_bytes() for path in before.rglob("*.key")}
    states = []
    for folder in killed_states(until_killed, change, before, functions, 300 if functions is WRITES else 0):
        states.append(opening(folder, keys))
        assert {path.name: path.read_bytes() for path in folder.rglob("*.key")} == files
        assert not list(folder.rglob(".*")), "something is left of the interrupted change"
    assert (states[0], states[-1]) == (first, last)
    assert states == sorted(states, key=(first, last).index)
    assert len(states) > (10 if functions is STEPS else 2)


@pytest.mark.parametrize(("functions", "written"), [(STEPS, 0), (WRITES, HEADER_BYTES + 20)], ids=["steps", "part"])
def test_decryption_killed_at_any_step_loses_no_key(
    tmp_path: Path, until_killed: Killed, functions: Sequence[str], written: int
) -> None:
    before = tmp_path / "plain"
    plain_home(before)
    seeds = [path.read_bytes()[HEADER_BYTES:] for path in before.rglob("*.key")]
    vault = LockedVault(before)
    asyncio.run(vault.set_passphrase(ONE))
    vault.close()
    keys = keys_of(before)
    states = []
    for folder in killed_states(until_killed, "decrypt", before, functions, written):
        states.append((folder / "slots.json").exists())
        assert keys_of(folder) == keys
        left = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        assert sum(seed in content for seed in seeds for content in left) == (0 if states[-1] else len(seeds))
        assert not list(folder.rglob(".*")), "something is left of the interrupted change"
    assert states == sorted(states, reverse=True)
    assert (states[0], states[-1]) == (True, False)
    assert len(states) > (30 if functions is STEPS else 2)


def test_old_file_beside_its_new_form_is_overwritten_before_it_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    plain_home(folder)
    path = folder / "identities" / "alice.key"
    seed = path.read_bytes()[HEADER_BYTES:]
    with path.open("rb") as old:  # the content that is deleted
        vault = LockedVault(folder)
        asyncio.run(vault.set_passphrase(b"one"))
        vault.close()
        content = old.read()
    assert os.path.lexists(path)
    assert seed not in content
    assert content[HEADER_BYTES:] == bytes(len(seed))
