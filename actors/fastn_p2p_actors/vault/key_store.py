"""Key files of a home, each read into locked memory when it is first used."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastn_p2p_actors.credentials.delegation import LINEAGE_BYTES
from fastn_p2p_client.errors import (
    HomeUnusable,
    IdentityExists,
    IdentityNotFound,
    InvalidName,
    StorageFailed,
    VaultLocked,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ..storage.atomic_files import sync_directory
from ..storage.enrolled_replicas import EnrolmentFile
from . import takeover
from .key_codec import KeyCodec, StoredKey
from .key_file import PLAIN, SEALED, SUFFIX, KeyHeader, encode_header, open_key_file, prepare_directory
from .key_pair import KeyPair
from .locked_memory import LockedMemory
from .replica_files import ReplicaFiles
from .revocation_files import RevocationFiles, SavedRevocation

_IDENTITY: Final = "identity"
_TRANSPORT: Final = "transport"
_FIRST_EPOCH: Final = 1


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
        revocations: revocations of the identities, beside their keys.
        replicas: other daemons for which the vault signs delegations, beside the keys.
    """

    def __init__(self, folder: Path, memory: LockedMemory, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._identities = folder / "identities"
        self.revocations = RevocationFiles(self._identities)
        self.replicas = ReplicaFiles(self._identities, self._own_lineage)
        self._memory = memory
        self._codec = KeyCodec(memory, clock)
        self._known: dict[str, StoredKey] = {}
        self._transport: StoredKey | None = None

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
    def sealed(self) -> bool:
        """True if the keys on disk are sealed. Set it before ``open``."""
        return self._codec.sealed

    @sealed.setter
    def sealed(self, value: bool) -> None:
        self._codec.sealed = value

    @property
    def is_locked(self) -> bool:
        """Return whether the keys are sealed and the master key is not here."""
        return self._codec.is_locked

    def unlock(self, master: Any) -> None:
        """Use the master key at this pointer from now on. Seal files that an interrupted takeover has left.

        Raises:
            HomeUnusable: the transport key cannot be used. The store stays locked.
            StorageFailed: a file could not be written. The store stays locked.
        """
        self._codec.master = master
        try:
            self._seal_files()
            if self._transport is None:
                self._open_transport()
        except BaseException:
            self._codec.master = None
            raise

    def lock(self) -> None:
        """Wipe the identities' keys from memory, and forget the master key, which its owner wipes."""
        self.wipe_identities()
        self._codec.master = None

    def wipe_identities(self) -> None:
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
        return self._codec.prepare_takeover(self._files(), SEALED, master, strict=True)

    def complete_seal(self, change: takeover.Takeover, master: Any) -> None:
        """Put the sealed files in place of the plain ones.

        Raises:
            StorageFailed: some files are not sealed yet; the next unlock does the rest.
        """
        self.sealed = True
        self._codec.master = master
        self._memory.hidden = True
        self.wipe_identities()
        change.apply()

    def write_unsealed(self) -> None:
        """Put plain files in the place of the sealed ones. The store must be unlocked, and stays sealed.

        Raises:
            HomeUnusable: a key file cannot be used. Nothing was changed.
            StorageFailed: some files may be plain; the next unlock seals them again.
        """
        self._codec.prepare_takeover(self._files(), PLAIN, self._codec.master, strict=True).apply()

    def discard_master(self) -> None:
        """Use keys in the clear from now on: the file with the slots is gone."""
        self.sealed = self._memory.hidden = False
        self._codec.master = None

    def _seal_files(self) -> None:
        self._codec.prepare_takeover(self._files(), SEALED, self._codec.master, strict=False).apply()

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

    def _open_transport(self) -> None:
        path = self._folder / f"{_TRANSPORT}{SUFFIX}"
        try:
            self._transport = self._codec.read(path, _TRANSPORT, _TRANSPORT)
        except FileNotFoundError:
            lineage = secrets.token_hex(LINEAGE_BYTES)
            pair = KeyPair.generate(self._memory)
            self._transport = self._codec.write(path, _TRANSPORT, _TRANSPORT, pair, epoch=_FIRST_EPOCH, lineage=lineage)
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

    def _own_lineage(self) -> bytes:
        return b"" if self._transport is None else self.lineage

    def public_of(self, name: str) -> bytes:
        """Return the public key of an identity, also while the store is locked.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it has no key.
            HomeUnusable: its file cannot be used.
        """
        try:
            with open_key_file(self._path(name), _IDENTITY, name) as (header, _):
                return bytes(PublicKey(header.public))
        except FileNotFoundError:
            raise IdentityNotFound(identity=name) from None

    def create(self, name: str) -> StoredKey:
        """Create the key of a new identity.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityExists: it has a key already.
            StorageFailed: the key could not be written.
            VaultLocked: the store is locked.
        """
        path = self._path(name)
        self._codec.check_unlocked(f"creating the identity {name!r}")
        if name in self._known or os.path.lexists(path):
            raise IdentityExists(identity=name)
        self.revocations.delete(name)  # of a deletion that was interrupted
        self.replicas.delete(name)
        try:
            made = self._known[name] = self._codec.write(path, _IDENTITY, name, KeyPair.generate(self._memory))
        except FileExistsError:
            raise IdentityExists(identity=name) from None
        return made

    def adopt(
        self,
        name: str,
        pair: KeyPair,
        created: str,
        revocation: SavedRevocation | None,
        enrolments: EnrolmentFile | None = None,
    ) -> bool:
        """Create the key of an identity from a copy of ``pair``, with its revocation. Return False if it is here.

        Args:
            created: time at which the key was made.
            revocation: its revocation; None without one. One that is here already stays.
            enrolments: its replicas; None without any. Those of a key that is here already stay.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityExists: it has another key.
            HomeUnusable: its file cannot be used.
            StorageFailed: the key could not be written.
            VaultLocked: the store is locked.
        """
        path = self._path(name)
        self._codec.check_unlocked("restoring a backup")
        is_here = name in self._known or os.path.lexists(path)
        if is_here and self.find(name).pair.public != pair.public:
            raise IdentityExists(identity=name)
        if not is_here:
            self.revocations.delete(name)  # of a deletion that was interrupted
            self.replicas.delete(name)
            if enrolments is not None:
                self.replicas.restore(name, enrolments, pair.public)
        if revocation is not None and self.revocations.find(name) is None:
            self.revocations.write(name, revocation)
        if not is_here:
            self._known[name] = self._codec.write(path, _IDENTITY, name, pair.copy(), created)
        return not is_here

    def rotate_transport(self) -> StoredKey:
        """Replace the transport key by a new one with the next epoch, on disk when this returns.

        A crash leaves the old key or the new one.

        Raises:
            StorageFailed: it could not be written. The old key is in use.
            VaultLocked: the store is locked.
        """
        self._codec.check_unlocked("rotating the transport key")
        old = self.transport
        pair = KeyPair.generate(self._memory)
        header = msgspec.structs.replace(
            old.header,
            public=PublicKey(pair.public).id52,
            encryption=self._codec.encryption,
            created=self._codec.timestamp(),
            epoch=old.header.epoch + 1,
        )
        path = self._folder / f"{_TRANSPORT}{SUFFIX}"
        change = takeover.Takeover()
        try:
            line = encode_header(header)
            change.add(path, line, self._codec.content(line, pair))
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
        self._codec.check_unlocked(f"deleting the identity {name!r}")
        self.replicas.delete(name)
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
        self._codec.check_unlocked(f"signing for {name!r}")
        found = self._known.get(name)
        if found is None:
            path = self._path(name)
            try:
                found = self._known[name] = self._codec.read(path, _IDENTITY, name)
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
