"""Fixture of several test modules about the vault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.locked_vaults import LockedVault, Opener


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
