"""Takeover of plain key files, killed at every step: no key is lost, and the next unlock finishes it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from tests.support.killed_takeover import STEPS, WRITES, Killed, killer
from tests.support.locked_vaults import LockedVault


@pytest.fixture(scope="module")
def until_killed() -> Iterator[Killed]:
    with killer() as set_passphrase:
        yield set_passphrase


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
            asyncio.run(vault.unlock(b"one"))
        return [vault.store.transport.pair.public, vault.store.find("alice").pair.public]
    finally:
        vault.close()


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
        killed = until_killed(folder, functions, len(states) + 1, written)
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
