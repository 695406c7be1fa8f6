"""Key files of a home, read into locked memory and written, in the clear or sealed under the vault's master key."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fastn_p2p_actors.credentials.sodium import SEED_BYTES
from fastn_p2p_client.errors import HomeUnusable, VaultLocked
from fastn_p2p_client.keys import id52_of

from . import takeover
from .key_file import FORMAT, HEADER_BYTES, PLAIN, SEALED, KeyHeader, encode_header, open_key_file, write_key_file
from .key_pair import KeyPair
from .locked_memory import LockedMemory
from .sealing import SEALED_BYTES, seal, unseal


class StoredKey(NamedTuple):
    header: KeyHeader
    pair: KeyPair


class KeyCodec:
    """Reads and writes key files.

    Attributes:
        sealed: True if the keys on disk are sealed.
        master: pointer to the master key; None while it is not here.
    """

    def __init__(self, memory: LockedMemory, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._clock = clock
        self.sealed = False
        self.master: Any = None

    @property
    def is_locked(self) -> bool:
        """Return whether the keys are sealed and the master key is not here."""
        return self.sealed and self.master is None

    def check_unlocked(self, what: str) -> None:
        """Raise VaultLocked if ``what`` needs keys that are locked."""
        if self.is_locked:
            raise VaultLocked(what=what)

    def read(self, path: Path, kind: str, name: str) -> StoredKey:
        """Read a key.

        Raises:
            FileNotFoundError: there is no such file.
            HomeUnusable: it cannot be used; the error names it.
            VaultLocked: it is sealed, and the store is locked.
        """
        with open_key_file(path, kind, name) as (header, descriptor):
            pair = self._read_pair(path, header, descriptor)
            if header.public == id52_of(pair.public):
                return StoredKey(header, pair)
            pair.wipe()
            raise HomeUnusable(path=str(path), reason="it is damaged: its secret and its public key do not match")

    def _read_pair(self, path: Path, header: KeyHeader, descriptor: int) -> KeyPair:
        if header.encryption == PLAIN:
            return KeyPair.read(self._memory, descriptor, HEADER_BYTES)
        if self.master is None:
            self.check_unlocked(f"using {path.name}")
            raise HomeUnusable(path=str(path), reason="it is sealed, but the vault has no slots.json that opens it")
        line = os.pread(descriptor, HEADER_BYTES, 0)
        slot = self._memory.allocate()
        if not unseal(self._memory, self.master, line, os.pread(descriptor, SEALED_BYTES, HEADER_BYTES), slot.pointer):
            self._memory.free(slot)
            raise HomeUnusable(path=str(path), reason="it is damaged, or sealed under another master key")
        return KeyPair(self._memory, slot)

    def write(
        self, path: Path, kind: str, name: str, pair: KeyPair, created: str = "", *, epoch: int = 0, lineage: str = ""
    ) -> StoredKey:
        """Write a new key, and return it. ``pair`` is wiped if that fails.

        Raises:
            FileExistsError: there is such a file.
            StorageFailed: it could not be written.
        """
        header = KeyHeader(
            format=FORMAT,
            kind=kind,
            name=name,
            public=id52_of(pair.public),
            encryption=self.encryption,
            created=created or self.timestamp(),
            epoch=epoch,
            lineage=lineage,
        )
        try:
            write_key_file(path, header, self.content(encode_header(header), pair))
        except BaseException:
            pair.wipe()
            raise
        return StoredKey(header, pair)

    @property
    def encryption(self) -> str:
        """Encryption of secrets that are written now. A key that was read before may have another one."""
        return SEALED if self.sealed else PLAIN

    def timestamp(self) -> str:
        """Return the time as key files have it: UTC, ISO 8601."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))

    def content(self, line: bytes, pair: KeyPair) -> bytes | memoryview:
        """Return the secret part of a key file whose header is ``line``."""
        return self._seal(line, pair, self.master) if self.sealed else pair.seed_view

    def prepare_takeover(
        self, files: Iterable[tuple[Path, str, str]], encryption: str, master: Any, *, strict: bool
    ) -> takeover.Takeover:
        """Return the takeover of every file that has another encryption. Without ``strict``, skip damaged files."""
        change = takeover.Takeover()
        try:
            for path, kind, name in files:
                try:
                    with open_key_file(path, kind, name) as (header, _):
                        if header.encryption == encryption:
                            continue
                    stored = self.read(path, kind, name)
                except (HomeUnusable, FileNotFoundError):
                    if strict:
                        raise
                    continue
                try:
                    line = encode_header(msgspec.structs.replace(header, encryption=encryption))
                    sealed = self._seal(line, stored.pair, master) if encryption == SEALED else stored.pair.seed_view
                    change.add(path, line, sealed)
                finally:
                    stored.pair.wipe()
        except BaseException:
            change.abandon()
            raise
        return change

    def _seal(self, line: bytes, pair: KeyPair, master: Any) -> bytes:
        """Return the sealed seed, after a check that it opens again."""
        sealed = seal(self._memory, master, line, pair.seed_pointer)
        slot = self._memory.allocate()
        try:
            opens = unseal(self._memory, master, line, sealed, slot.pointer)
            if not opens or slot.view[:SEED_BYTES] != pair.seed_view:
                raise RuntimeError("a sealed key does not open again")
        finally:
            self._memory.free(slot)
        return sealed
