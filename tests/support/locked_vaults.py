"""Vaults with a passphrase, for tests: key store and lock without a process, with a cheap argon2id."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from fastn_p2p_actors.vault.key_lock import KeyLock
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.owner_messages import SlotKind
from fastn_p2p_actors.vault.passphrase import Argon2Cost
from fastn_p2p_actors.vault.slot_changes import SlotChanges
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
            record=self.record,
            clock=self.clock,
        )
        self.slots = SlotChanges(self.lock, self.store, record=self.record, clock=self.clock, cost=CHEAP)
        self.lock.open(kept)

    def clock(self) -> float:
        return self.now

    def record(self, event: str, _fields: Mapping[str, object]) -> None:
        self.events.append(event)

    async def set_passphrase(self, new: bytes, current: bytes | None = None) -> None:
        with delivered(new) as first, _optional(current) as second:
            await self.slots.set_passphrase(first, second)

    async def add(self, kind: SlotKind, new: bytes, current: bytes | None, name: str = "", **options: bool) -> None:
        with delivered(new) as first, _optional(current) as second:
            await self.slots.add(kind, name, first, second, **options)

    async def remove(self, name: str, secret: bytes, *, decrypt: bool = False) -> None:
        with delivered(secret) as descriptor:
            await self.slots.remove(name, descriptor, decrypt=decrypt)

    async def unlock(self, passphrase: bytes, seconds: int = 0) -> None:
        with delivered(passphrase) as descriptor:
            await self.lock.unlock(descriptor, seconds)

    def close(self) -> None:
        """End, as a process would."""
        self.lock.close()
        self.memory.wipe()


Opener = Callable[..., LockedVault]
"""Opens the vault of a directory once more, with the descriptor of a kept page if there is one."""


def _optional(content: bytes | None) -> AbstractContextManager[int | None]:
    return nullcontext() if content is None else delivered(content)


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
