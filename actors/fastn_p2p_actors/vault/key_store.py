"""Key files of a home, each read into locked memory when it is first used."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastn_p2p_actors.credentials.delegation import LINEAGE_BYTES
from fastn_p2p_actors.credentials.sodium import SEED_BYTES
from fastn_p2p_client.errors import (
    HomeUnusable,
    IdentityExists,
    IdentityNotFound,
    InvalidKey,
    InvalidName,
    StorageFailed,
    VaultLocked,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ..storage.atomic_files import sync_directory
from . import takeover
from .key_file import (
    FORMAT,
    HEADER_BYTES,
    PLAIN,
    SEALED,
    SUFFIX,
    KeyHeader,
    encode_header,
    open_key_file,
    prepare_directory,
    write_key_file,
)
from .key_pair import KeyPair
from .locked_memory import LockedMemory
from .revocation_files import RevocationFiles, SavedRevocation
from .sealing import SEALED_BYTES, seal, unseal

_IDENTITY: Final = "identity"
_TRANSPORT: Final = "transport"
_FIRST_EPOCH: Final = 1


class StoredKey(NamedTuple):
    header: KeyHeader
    pair: KeyPair


class KeyPage(NamedTuple):
    """Some identities, sorted by name.

    Attributes:
        keys: usable keys.
        damaged: one error for each identity that cannot be used.
        more: True if further names follow.
        last: last name of this page.
    """

    keys: list[StoredKey]
    damaged: list[HomeUnusable]
    more: bool
    last: str


class KeyStore:
    """Keys in ``folder``: ``transport.key``, and ``identities/<name>.key``.

    A file that cannot be used does not affect the others. The store sees files that appear or disappear while the vault
    runs. But a key that was read stays usable until it is deleted here.

    A sealed store needs the vault's master key: without it, it is locked. Then every use of an identity's key raises
    ``VaultLocked``. The transport key stays usable once it was read: the network process has it anyway.

    Attributes:
        sealed: True if the keys on disk are sealed. Set it before ``open``.
        revocations: revocations of the identities, beside their keys.
    """

    def __init__(self, folder: Path, memory: LockedMemory, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._identities = folder / "identities"
        self.revocations = RevocationFiles(self._identities)
        self._memory = memory
        self._clock = clock
        self._known: dict[str, StoredKey] = {}
        self._transport: StoredKey | None = None
        self._master: Any = None
        self.sealed = False

    def open(self) -> None:
        """Create missing directories, and the transport key unless the store is sealed.

        Raises:
            HomeUnusable: a directory or the transport key cannot be used.
            StorageFailed: the transport key could not be written.
        """
        for folder in (self._folder, self._identities):
            prepare_directory(folder)
            takeover.repair(folder)
        if not self.sealed:
            self._open_transport()

    @property
    def is_locked(self) -> bool:
        """Return whether the keys are sealed and the master key is not here."""
        return self.sealed and self._master is None

    def unlock(self, master: Any) -> None:
        """Use the master key at this pointer from now on. Seal files that an interrupted takeover has left.

        Raises:
            HomeUnusable: the transport key cannot be used. The store stays locked.
            StorageFailed: a file could not be written. The store stays locked.
        """
        self._master = master
        try:
            self._seal_files()
            if self._transport is None:
                self._open_transport()
        except BaseException:
            self._master = None
            raise

    def lock(self) -> None:
        """Wipe the identities' keys from memory, and forget the master key, which its owner wipes."""
        self.forget()
        self._master = None

    def forget(self) -> None:
        """Wipe the identities' keys from memory. They are read again when they are used."""
        for stored in self._known.values():
            stored.pair.wipe()
        self._known.clear()

    def prepare_seal(self, master: Any) -> takeover.Takeover:
        """Return the takeover that seals every file under the master key; nothing is changed yet.

        Raises:
            HomeUnusable: a key file cannot be used. Nothing was changed.
            StorageFailed: a file could not be written. Nothing was changed.
        """
        return self._takeover(SEALED, master, strict=True)

    def complete_seal(self, change: takeover.Takeover, master: Any) -> None:
        """Put the sealed files in place of the plain ones.

        Raises:
            StorageFailed: some files are not sealed yet; the next unlock does the rest.
        """
        self.sealed = True
        self._master = master
        self._memory.hidden = True
        self.forget()
        change.apply()

    def write_unsealed(self) -> None:
        """Put plain files in the place of the sealed ones. The store must be unlocked, and stays sealed.

        Raises:
            HomeUnusable: a key file cannot be used. Nothing was changed.
            StorageFailed: some files may be plain; the next unlock seals them again.
        """
        self._takeover(PLAIN, self._master, strict=True).apply()

    def forget_master(self) -> None:
        """Use keys in the clear from now on: the file with the slots is gone."""
        self.sealed = self._memory.hidden = False
        self._master = None

    def _seal_files(self) -> None:
        self._takeover(SEALED, self._master, strict=False).apply()

    def _takeover(self, encryption: str, master: Any, *, strict: bool) -> takeover.Takeover:
        """Return the takeover of every file that has another encryption. Without ``strict``, skip damaged files."""
        change = takeover.Takeover()
        try:
            for path, kind, name in self._files():
                try:
                    with open_key_file(path, kind, name) as (header, _):
                        if header.encryption == encryption:
                            continue
                    stored = self._read(path, kind, name)
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

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        """Yield every key file, with the kind and the name of its key."""
        transport = self._folder / f"{_TRANSPORT}{SUFFIX}"
        if os.path.lexists(transport):
            yield transport, _TRANSPORT, _TRANSPORT
        try:
            found = sorted(path for path in self._identities.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise HomeUnusable(path=str(self._identities), reason=error.strerror or str(error)) from None
        for path in found:
            if _is_name(path.stem):
                yield path, _IDENTITY, path.stem

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

    def _open_transport(self) -> None:
        path = self._folder / f"{_TRANSPORT}{SUFFIX}"
        try:
            self._transport = self._read(path, _TRANSPORT, _TRANSPORT)
        except FileNotFoundError:
            lineage = secrets.token_hex(LINEAGE_BYTES)
            pair = KeyPair.generate(self._memory)
            self._transport = self._write(path, _TRANSPORT, _TRANSPORT, pair, epoch=_FIRST_EPOCH, lineage=lineage)
        _check_lineage(path, self._transport.header)

    @property
    def transport(self) -> StoredKey:
        """The transport key.

        Raises:
            VaultLocked: the store was not unlocked since the vault has started.
        """
        if self._transport is None:
            raise VaultLocked(what="reaching peers")
        return self._transport

    @property
    def lineage(self) -> bytes:
        """Random name of this daemon's succession of transport keys."""
        return bytes.fromhex(self.transport.header.lineage)

    def create(self, name: str) -> StoredKey:
        """Create the key of a new identity.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityExists: it has a key already.
            StorageFailed: the key could not be written.
            VaultLocked: the store is locked.
        """
        path = self._path(name)
        self._check_unlocked(f"creating the identity {name!r}")
        if name in self._known or os.path.lexists(path):
            raise IdentityExists(identity=name)
        self.revocations.delete(name)  # of a deletion that was interrupted
        try:
            made = self._known[name] = self._write(path, _IDENTITY, name, KeyPair.generate(self._memory))
        except FileExistsError:
            raise IdentityExists(identity=name) from None
        return made

    def adopt(self, name: str, pair: KeyPair, created: str, revocation: SavedRevocation | None) -> bool:
        """Create the key of an identity from a copy of ``pair``, with its revocation. Return False if it is here.

        Args:
            created: time at which the key was made.
            revocation: its revocation; None without one. One that is here already stays.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityExists: it has another key.
            HomeUnusable: its file cannot be used.
            StorageFailed: the key could not be written.
            VaultLocked: the store is locked.
        """
        path = self._path(name)
        self._check_unlocked("restoring a backup")
        is_here = name in self._known or os.path.lexists(path)
        if is_here and self.find(name).pair.public != pair.public:
            raise IdentityExists(identity=name)
        if not is_here:
            self.revocations.delete(name)  # of a deletion that was interrupted
        if revocation is not None and self.revocations.find(name) is None:
            self.revocations.write(name, revocation)
        if not is_here:
            self._known[name] = self._write(path, _IDENTITY, name, pair.copy(), created)
        return not is_here

    def rotate_transport(self) -> StoredKey:
        """Replace the transport key by a new one with the next epoch, on disk when this returns.

        A crash leaves the old key or the new one.

        Raises:
            StorageFailed: it could not be written. The old key is in use.
            VaultLocked: the store is locked.
        """
        self._check_unlocked("rotating the transport key")
        old = self.transport
        pair = KeyPair.generate(self._memory)
        header = msgspec.structs.replace(
            old.header, public=PublicKey(pair.public).id52, created=self._time(), epoch=old.header.epoch + 1
        )
        path = self._folder / f"{_TRANSPORT}{SUFFIX}"
        change = takeover.Takeover()
        try:
            line = encode_header(header)
            change.add(path, line, self._seal(line, pair, self._master) if self.sealed else pair.seed_view)
            change.apply()
        except StorageFailed:
            if not self._is_on_disk(path, pair.public):
                pair.wipe()
                raise
        self._transport = StoredKey(header, pair)
        old.pair.wipe()
        return self._transport

    def _is_on_disk(self, path: Path, public: bytes) -> bool:
        """Return whether the transport key on disk is this one."""
        try:
            with open_key_file(path, _TRANSPORT, _TRANSPORT) as (header, _):
                return header.public == PublicKey(public).id52
        except (OSError, HomeUnusable):
            return False

    def delete(self, name: str) -> None:
        """Delete the identity's key, even if it is damaged, and then its revocation.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it has no key.
            StorageFailed: the file could not be deleted.
            VaultLocked: the store is locked.
        """
        path = self._path(name)
        self._check_unlocked(f"deleting the identity {name!r}")
        try:
            path.unlink()
            sync_directory(path.parent)
        except FileNotFoundError:
            if not self.revocations.delete(name):
                raise IdentityNotFound(identity=name) from None
        except OSError as error:
            raise StorageFailed(path=str(path), reason=error.strerror or str(error)) from None
        else:
            self.revocations.delete(name)
        finally:
            if not os.path.lexists(path) and name in self._known:
                self._known.pop(name).pair.wipe()

    def find(self, name: str) -> StoredKey:
        """Return the identity's key.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it has no key.
            HomeUnusable: its file cannot be used; the error names it.
            VaultLocked: the store is locked.
        """
        self._check_unlocked(f"signing for {name!r}")
        found = self._known.get(name)
        if found is None:
            path = self._path(name)
            try:
                found = self._known[name] = self._read(path, _IDENTITY, name)
            except FileNotFoundError:
                raise IdentityNotFound(identity=name) from None
        return found

    def count_identities(self) -> int:
        """Return the number of key files of identities; 0 if the directory cannot be read."""
        try:
            return sum(path.suffix == SUFFIX and _is_name(path.stem) for path in self._identities.iterdir())
        except OSError:
            return 0

    def names(self) -> list[str]:
        """Return the names of all identities with a key file, sorted. Raises HomeUnusable."""
        try:
            stems = sorted(path.stem for path in self._identities.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise HomeUnusable(path=str(self._identities), reason=error.strerror or str(error)) from None
        return [name for name in stems if _is_name(name)]

    def page(self, after: str, size: int) -> KeyPage:
        """Return up to ``size`` identities whose names come after ``after``.

        Raises:
            HomeUnusable: the directory cannot be read.
        """
        names = [name for name in self.names() if name > after]
        keys: list[StoredKey] = []
        damaged: list[HomeUnusable] = []
        for name in names[:size]:
            try:
                keys.append(self.find(name))
            except HomeUnusable as error:
                damaged.append(error)
            except IdentityNotFound:
                continue
        return KeyPage(keys, damaged, len(names) > size, names[:size][-1] if names else after)

    def _path(self, name: str) -> Path:
        return self._identities / f"{check_name(name, 'an identity')}{SUFFIX}"

    def _time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))

    def _write(
        self, path: Path, kind: str, name: str, pair: KeyPair, created: str = "", *, epoch: int = 0, lineage: str = ""
    ) -> StoredKey:
        header = KeyHeader(
            format=FORMAT,
            kind=kind,
            name=name,
            public=PublicKey(pair.public).id52,
            encryption=SEALED if self.sealed else PLAIN,
            created=created or self._time(),
            epoch=epoch,
            lineage=lineage,
        )
        try:
            content = self._seal(encode_header(header), pair, self._master) if self.sealed else pair.seed_view
            write_key_file(path, header, content)
        except BaseException:
            pair.wipe()
            raise
        return StoredKey(header, pair)

    def _read(self, path: Path, kind: str, name: str) -> StoredKey:
        with open_key_file(path, kind, name) as (header, descriptor):
            pair = self._read_pair(path, header, descriptor)
            try:
                if bytes(PublicKey(header.public)) == pair.public:
                    return StoredKey(header, pair)
            except InvalidKey:
                pass
            pair.wipe()
            raise HomeUnusable(path=str(path), reason="it is damaged: its secret and its public key do not match")

    def _read_pair(self, path: Path, header: KeyHeader, descriptor: int) -> KeyPair:
        if header.encryption == PLAIN:
            return KeyPair.read(self._memory, descriptor, HEADER_BYTES)
        if self._master is None:
            self._check_unlocked(f"using {path.name}")
            raise HomeUnusable(path=str(path), reason="it is sealed, but the vault has no slots.json that opens it")
        line = os.pread(descriptor, HEADER_BYTES, 0)
        slot = self._memory.allocate()
        if not unseal(self._memory, self._master, line, os.pread(descriptor, SEALED_BYTES, HEADER_BYTES), slot.pointer):
            self._memory.free(slot)
            raise HomeUnusable(path=str(path), reason="it is damaged, or sealed under another master key")
        return KeyPair(self._memory, slot)

    def _check_unlocked(self, what: str) -> None:
        if self.is_locked:
            raise VaultLocked(what=what)


def _check_lineage(path: Path, header: KeyHeader) -> None:
    try:
        usable = len(bytes.fromhex(header.lineage)) == LINEAGE_BYTES and header.epoch >= _FIRST_EPOCH
    except ValueError:
        usable = False
    if not usable:
        raise HomeUnusable(path=str(path), reason="it is damaged: no lineage, or no epoch")


def _is_name(text: str) -> bool:
    try:
        check_name(text, "an identity")
    except InvalidName:
        return False
    return True
