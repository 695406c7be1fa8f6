"""Fixtures of several test modules about the vault."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_actors.vault.access_policy import GATEWAY
from fastn_p2p_actors.vault.actor import VaultServer
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.messages import CreateKey
from fastn_p2p_actors.vault.vault import Vault
from tests.support.locked_vaults import LockedVault, Opener
from tests.support.vault_setup import VaultClock, VaultSetup


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[VaultSetup]:
    """Open vault that has alice."""
    memory, clock = LockedMemory(), VaultClock()
    folder = tmp_path / "vault"
    store = KeyStore(folder, memory, clock)
    store.open()
    vault = Vault(store, clock)
    vault.answer(GATEWAY, CreateKey("alice"))
    yield VaultSetup(vault, VaultServer(vault, logging.getLogger("vault")), clock, folder)
    memory.wipe()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the vault of one directory, as its next process would."""
    vaults: list[LockedVault] = []

    def open_next(kept: int | None = None) -> LockedVault:
        vaults.append(LockedVault(tmp_path / "vault", kept))
        return vaults[-1]

    yield open_next
    for vault in vaults:
        vault.close()
        for descriptor in vault.kept:
            if descriptor >= 0:
                os.close(descriptor)
