"""Backups: the keys of the identities in one encrypted file, and back.

The vault encrypts the file and opens it, because nobody else may see a key. Other processes give it the files without
secrets, and get them back. The transport key is in no backup: another machine has one of its own.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_client.errors import BackupUnusable, BadMessage, IdentityNotFound, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack
from fastn_p2p_client.keys import id52_of
from fastn_p2p_client.names import check_name

from ..backup.archive import (
    BLOCK,
    END,
    IDENTITIES,
    MANIFEST,
    MAX_PUBLIC,
    REPLICAS,
    REVOCATION,
    SEED,
    SEED_DIGITS,
    ArchiveError,
    BackedUpKey,
    Manifest,
    check_manifest,
    decode_header,
    encode_file,
    encode_header,
    padding,
    split_identity_path,
)
from ..credentials import read_revocation
from ..credentials.sodium import SEED_BYTES
from ..runtime.machine_name import machine_name
from ..storage.atomic_files import error_text
from ..storage.enrolled_replicas import EnrolmentFile, decode_enrolments
from .age_file import AgeReader, AgeWriter
from .age_keys import WORK_FACTOR, AgeFormatError
from .key_codec import StoredKey
from .key_pair import KeyPair
from .key_store import KeyStore
from .locked_memory import LockedMemory
from .messages import AdoptKeys
from .owner_messages import BackupOpened, CreateBackup, OpenBackup
from .passphrase import Secret
from .revocation_files import SavedRevocation, decode_revocation
from .signatures import sign_owner_statement

MAX_KEYS: Final = 100_000
"""Keys in one backup."""
KEEP_SECONDS: Final = 120.0
"""Seconds for which the keys of an opened backup wait for the rest of the restore."""
_TOKEN_BYTES: Final = 16
_BATCH: Final = 100
"""Keys that are written before other requests get a turn."""


class BackupKey(NamedTuple):
    """Key in an opened backup."""

    created: str
    pair: KeyPair
    revocation: SavedRevocation | None
    enrolments: EnrolmentFile | None = None


class BackupKeys:
    """Keys of a backup in locked memory, by name, and its files without secrets."""

    def __init__(self) -> None:
        self.keys: dict[str, BackupKey] = {}
        self.public = b""

    def wipe(self) -> None:
        for key in self.keys.values():
            key.pair.wipe()
        self.keys.clear()


class Backups:
    """Makes and opens backups, one at a time.

    Args:
        busy: held while passphrase or state of the vault change.
        record: writes an event with its fields to the audit log.
        work_factor: base-2 logarithm of scrypt's N for new backups.
    """

    def __init__(
        self,
        store: KeyStore,
        memory: LockedMemory,
        busy: asyncio.Lock,
        record: Callable[[str, dict[str, object]], None],
        *,
        work_factor: int = WORK_FACTOR,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._memory = memory
        self._record = record
        self._work_factor = work_factor
        self._clock = clock
        self._busy = busy
        self._opened: dict[bytes, BackupKeys] = {}
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Wipe the keys of an opened backup."""
        if self._timer is not None:
            self._timer.cancel()
        for opened in self._opened.values():
            opened.wipe()
        self._opened.clear()

    async def create(self, request: CreateBackup, passphrase: int, files: int, target: int) -> None:
        """Write a backup to ``target``, on disk when this returns.

        Args:
            passphrase, files, target: the descriptors of the request.

        Raises:
            IdentityNotFound: there is no such identity.
            InvalidPassphrase, Overloaded: the passphrase cannot be used.
            HomeUnusable: a key file cannot be used.
            VaultLocked: the vault was locked.
            StorageFailed: the backup cannot be written.
        """
        public = await asyncio.to_thread(_read_all, files)
        async with self._busy:
            names = self._choose(request.identities)
            with Secret() as secret, AgeWriter(target) as writer:
                await asyncio.to_thread(secret.read, passphrase)
                await asyncio.to_thread(writer.start, secret, self._work_factor)
                writer.write(encode_file(MANIFEST, self._manifest(names), self._clock()))
                for count, name in enumerate(names):
                    self._write_key(writer, name)
                    if count % _BATCH == 0:
                        await asyncio.sleep(0)
                writer.write(public + END)
                await asyncio.to_thread(writer.finish)
        self._record("backup-created", {"identities": names[:_BATCH], "count": len(names)})

    async def open(self, request: OpenBackup, passphrase: int, source: int, files: int) -> BackupOpened:
        """Open a backup, and write its files without secrets to ``files``.

        If the request says so, its keys are kept for ``KEEP_SECONDS``.

        Args:
            passphrase, source, files: the descriptors of the request.

        Raises:
            InvalidPassphrase, WrongBackupPassphrase, Overloaded: the passphrase does not open it.
            BackupUnusable: the file is no backup, is damaged, or of a newer version.
            StorageFailed: the files cannot be written.
        """
        with Secret() as secret:
            await asyncio.to_thread(secret.read, passphrase)
            opened = await asyncio.to_thread(self._read, secret, source)
        try:
            await asyncio.to_thread(_write_all, files, opened.public)
        except BaseException:
            opened.wipe()
            raise
        if not request.keep:
            opened.wipe()
            return BackupOpened()
        self.close()
        token = secrets.token_bytes(_TOKEN_BYTES)
        self._opened[token] = opened
        self._timer = asyncio.get_running_loop().call_later(KEEP_SECONDS, self.close)
        self._record("backup-opened", {"count": len(opened.keys)})
        return BackupOpened(token)

    def adopt(self, request: AdoptKeys) -> Ack:
        """Create keys of an opened backup, with their revocations. A key that is here already stays.

        Raises:
            BackupUnusable: the backup is not open any more, or has no such key.
            IdentityExists: another key has this name. Nothing was changed.
            StorageFailed, VaultLocked: a key could not be written. Nothing was changed.
        """
        opened = self._opened.get(request.token)
        if opened is None:
            raise BackupUnusable(path="the backup", reason="it is not open any more. Repeat the command")
        made: list[str] = []
        try:
            for name, new_name in request.names:
                key = opened.keys.get(name)
                if key is None:
                    raise BackupUnusable(path="the backup", reason=f"it has no identity {name!r}")
                if self._store.adopt(new_name, key.pair, key.created, key.revocation, key.enrolments):
                    made.append(new_name)
        except BaseException:
            for new_name in made:
                self._store.delete(new_name)
            raise
        return Ack()

    def _choose(self, wanted: Iterable[str]) -> list[str]:
        """Return the names of the keys to back up, sorted. Raises IdentityNotFound."""
        names = self._store.names()
        for name in wanted:
            if check_name(name, "an identity") not in names:
                raise IdentityNotFound(identity=name)
        return sorted(set(wanted)) or names

    def _manifest(self, names: list[str]) -> bytes:
        keys = []
        for name in names:
            stored = self._store.find(name)
            keys.append(BackedUpKey(name, id52_of(stored.pair.public), stored.header.created))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        manifest = Manifest(created=created, host=platform.node(), identities=keys)
        return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"

    def _write_key(self, writer: AgeWriter, name: str) -> None:
        stored: StoredKey = self._store.find(name)
        size = SEED_DIGITS + 1
        writer.write(encode_header(f"{IDENTITIES}/{name}/{SEED}", size, self._clock()))
        writer.write_hex(stored.pair.seed_pointer, SEED_BYTES)
        writer.write(b"\n" + bytes(padding(size)))
        saved = self._store.revocations.find(name)
        if saved is not None:
            data = msgspec.json.encode(saved) + b"\n"
            writer.write(encode_file(f"{IDENTITIES}/{name}/{REVOCATION}", data, self._clock()))
        if enrolments := self._store.replicas.export(name, self._clock(), partial(self._first_owner, stored)):
            writer.write(encode_file(f"{IDENTITIES}/{name}/{REPLICAS}", enrolments, self._clock()))

    def _first_owner(self, key: StoredKey) -> bytes:
        """Return the statement that this daemon is the owner's, for a vault that will be restored from the backup."""
        daemon = machine_name()
        return sign_owner_statement(key, self._store.transport, self._store.lineage, 0, 0, self._clock(), daemon)

    def _read(self, secret: Secret, source: int) -> BackupKeys:
        """Return the opened backup. Called in a thread."""
        opened = BackupKeys()
        try:
            with AgeReader(source) as reader:
                reader.start(secret)
                _BackupReader(reader, self._memory, opened).read()
        except (AgeFormatError, ArchiveError) as error:
            opened.wipe()
            raise BackupUnusable(path="the backup", reason=str(error)) from None
        except BaseException:
            opened.wipe()
            raise
        return opened


class _BackupReader:
    """Reads the archive in an open age file. Seeds go straight into locked memory."""

    def __init__(self, reader: AgeReader, memory: LockedMemory, opened: BackupKeys) -> None:
        self._reader = reader
        self._memory = memory
        self._opened = opened
        self._pairs: dict[str, KeyPair] = {}
        self._revocations: dict[str, SavedRevocation] = {}
        self._enrolments: dict[str, EnrolmentFile] = {}

    def read(self) -> None:
        """Read everything. Raises AgeFormatError or ArchiveError."""
        found = self._next()
        if found is None:
            raise ArchiveError("it is empty")
        path, size = found
        data = self._read_file(size)
        public = [encode_file(path, data, 0)]
        manifest = check_manifest(path, data)
        total = len(public[0])
        try:
            while (found := self._next()) is not None:
                path, size = found
                if self._read_key_file(path, size):
                    continue
                data = self._read_file(size)
                self._note_enrolments(path, data)
                public.append(encode_file(path, data, 0))
                total += len(public[-1])
                if total > MAX_PUBLIC:
                    raise ArchiveError(f"its files without keys have more than {MAX_PUBLIC} bytes")
            self._reader.finish()
            self._check(manifest)
        finally:
            for pair in self._pairs.values():
                pair.wipe()
        self._opened.public = b"".join(public)

    def _next(self) -> tuple[str, int] | None:
        block = self._reader.read(BLOCK)
        if len(block) < BLOCK:
            raise ArchiveError("it is cut off")
        return decode_header(block)

    def _read_file(self, size: int) -> bytes:
        if size > MAX_PUBLIC:
            raise ArchiveError(f"a file in it has {size} bytes")
        data = self._reader.read(size + padding(size))
        if len(data) < size + padding(size):
            raise ArchiveError("it is cut off")
        return data[:size]

    def _read_key_file(self, path: str, size: int) -> bool:
        """Read the seed or the revocation of an identity. Return False for another file."""
        identity = split_identity_path(path)
        if identity is None or identity[1] not in (SEED, REVOCATION):
            return False
        name, kind = identity
        if kind == REVOCATION:
            try:
                self._revocations[name] = decode_revocation(self._read_file(size))
            except UNDECODABLE as error:
                raise ArchiveError(f"{path} in it is damaged: {error}") from None
            return True
        if size != SEED_DIGITS + 1 or name in self._pairs or len(self._pairs) >= MAX_KEYS:
            raise ArchiveError(f"{path} in it is damaged")
        seed = self._memory.allocate()
        try:
            self._reader.read_hex(seed.pointer, SEED_BYTES)
        except BaseException:
            self._memory.free(seed)
            raise
        self._pairs[name] = KeyPair(self._memory, seed)
        self._reader.read(1 + padding(size))
        return True

    def _note_enrolments(self, path: str, data: bytes) -> None:
        identity = split_identity_path(path)
        if identity is not None and identity[1] == REPLICAS:
            with suppress(*UNDECODABLE):  # ``BackupContents`` says that it is left out
                self._enrolments[identity[0]] = decode_enrolments(data)

    def _check(self, manifest: Manifest) -> None:
        """Give the keys to the opened backup, after checking that they are those of the manifest."""
        for key in manifest.identities:
            pair = self._pairs.get(key.name)
            saved = self._revocations.get(key.name)
            if pair is None or id52_of(pair.public) != key.id52:
                raise ArchiveError(f"the key of {key.name[:64]!r} in it is missing or another one")
            if saved is not None and read_revocation(saved.revocation).identity != pair.public:
                raise ArchiveError(f"the revocation of {key.name!r} in it is another identity's")
            self._opened.keys[key.name] = BackupKey(
                key.created, self._pairs.pop(key.name), saved, self._enrolments.get(key.name)
            )


def _read_all(descriptor: int) -> bytes:
    """Return the content of a file of at most ``MAX_PUBLIC`` bytes, from its start. Raises BadMessage."""
    try:
        data = os.pread(descriptor, MAX_PUBLIC + 1, 0)
    except OSError as error:
        raise BadMessage(reason=f"the files of the backup cannot be read: {error_text(error)}") from None
    if len(data) > MAX_PUBLIC or len(data) % BLOCK:
        raise BadMessage(reason="the files of the backup are no archive, or too large")
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise StorageFailed(path="the files of the backup", reason=error_text(error)) from None
