"""Vaults with a passphrase, for tests: key store and lock without a process, with a cheap argon2id."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastn_p2p_actors.vault.key_lock import KeyLock
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.passphrase import Argon2Cost
from tests.support.signer import NOW

CHEAP: Final = Argon2Cost(passes=1, memory=8192)


class LockedVault:
    """Key store and lock of a directory, as one process of the vault has them.

    Attributes:
        kept: descriptors that were given to the supervisor, the last one last; -1 for a release.
        events: of the audit log.
        now: Unix time.
    """

    def __init__(self, folder: Path, kept: int | None = None) -> None:
        self.folder = folder
        self.now = float(NOW)
        self.kept: list[int] = []
        self.events: list[str] = []
        self.memory = LockedMemory()
        self.store = KeyStore(folder, self.memory, self.clock)
        self.lock = KeyLock(
            folder,
            self.store,
            self.memory,
            keep=lambda descriptor: self.kept.append(descriptor if descriptor < 0 else os.dup(descriptor)),
            record=self.events.append,
            clock=self.clock,
            cost=CHEAP,
        )
        self.lock.open(kept)

    def clock(self) -> float:
        return self.now

    async def set_passphrase(self, new: bytes, current: bytes | None = None) -> None:
        with delivered(new) as first:
            if current is None:
                await self.lock.set_passphrase(first, None)
                return
            with delivered(current) as second:
                await self.lock.set_passphrase(first, second)

    async def unlock(self, passphrase: bytes, seconds: int = 0) -> None:
        with delivered(passphrase) as descriptor:
            await self.lock.unlock(descriptor, seconds)

    def close(self) -> None:
        """End, as a process would."""
        self.lock.close()
        self.memory.wipe()


@contextmanager
def delivered(content: bytes) -> Iterator[int]:
    """Return a descriptor that delivers these bytes."""
    reader, writer = os.pipe()
    try:
        os.write(writer, content)
        os.close(writer)
        yield reader
    finally:
        os.close(reader)
