"""Key files of a home, each read into locked memory when it is first used."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_actors.credentials.delegation import LINEAGE_BYTES
from fastn_p2p_client.errors import (
    HomeUnusable,
    IdentityExists,
    IdentityNotFound,
    InvalidKey,
    InvalidName,
    StorageFailed,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ..storage.atomic_files import sync_directory
from .key_file import FORMAT, HEADER_BYTES, SUFFIX, KeyHeader, open_key_file, prepare_directory, write_key_file
from .key_pair import KeyPair
from .locked_memory import LockedMemory

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
    """

    def __init__(self, folder: Path, memory: LockedMemory, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._identities = folder / "identities"
        self._memory = memory
        self._clock = clock
        self._known: dict[str, StoredKey] = {}
        self._transport: StoredKey | None = None

    def open(self) -> None:
        """Create missing directories and the transport key.

        Raises:
            HomeUnusable: a directory or the transport key cannot be used.
            StorageFailed: the transport key could not be written.
        """
        prepare_directory(self._folder)
        prepare_directory(self._identities)
        path = self._folder / f"{_TRANSPORT}{SUFFIX}"
        try:
            self._transport = self._read(path, _TRANSPORT, _TRANSPORT)
        except FileNotFoundError:
            lineage = secrets.token_hex(LINEAGE_BYTES)
            self._transport = self._write(path, _TRANSPORT, _TRANSPORT, epoch=_FIRST_EPOCH, lineage=lineage)
        _check_lineage(path, self._transport.header)

    @property
    def transport(self) -> StoredKey:
        if self._transport is None:
            raise RuntimeError("call open() first")
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
        """
        path = self._path(name)
        if name in self._known or os.path.lexists(path):
            raise IdentityExists(identity=name)
        try:
            made = self._known[name] = self._write(path, _IDENTITY, name)
        except FileExistsError:
            raise IdentityExists(identity=name) from None
        return made

    def delete(self, name: str) -> None:
        """Delete the identity's key, even if it is damaged.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it has no key.
            StorageFailed: the file could not be deleted.
        """
        path = self._path(name)
        try:
            path.unlink()
            sync_directory(path.parent)
        except FileNotFoundError:
            raise IdentityNotFound(identity=name) from None
        except OSError as error:
            raise StorageFailed(path=str(path), reason=error.strerror or str(error)) from None
        finally:
            if not os.path.lexists(path) and name in self._known:
                self._known.pop(name).pair.wipe()

    def find(self, name: str) -> StoredKey:
        """Return the identity's key.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it has no key.
            HomeUnusable: its file cannot be used; the error names it.
        """
        found = self._known.get(name)
        if found is None:
            path = self._path(name)
            try:
                found = self._known[name] = self._read(path, _IDENTITY, name)
            except FileNotFoundError:
                raise IdentityNotFound(identity=name) from None
        return found

    def page(self, after: str, size: int) -> KeyPage:
        """Return up to ``size`` identities whose names come after ``after``.

        Raises:
            HomeUnusable: the directory cannot be read.
        """
        try:
            stems = sorted(path.stem for path in self._identities.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise HomeUnusable(path=str(self._identities), reason=error.strerror or str(error)) from None
        names = [name for name in stems if name > after and _is_name(name)]
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

    def _write(self, path: Path, kind: str, name: str, *, epoch: int = 0, lineage: str = "") -> StoredKey:
        pair = KeyPair.generate(self._memory)
        header = KeyHeader(
            format=FORMAT,
            kind=kind,
            name=name,
            public=PublicKey(pair.public).id52,
            encryption="none",
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock())),
            epoch=epoch,
            lineage=lineage,
        )
        try:
            write_key_file(path, header, pair.seed_view)
        except BaseException:
            pair.wipe()
            raise
        return StoredKey(header, pair)

    def _read(self, path: Path, kind: str, name: str) -> StoredKey:
        with open_key_file(path, kind, name) as (header, descriptor):
            pair = KeyPair.read(self._memory, descriptor, HEADER_BYTES)
            try:
                if bytes(PublicKey(header.public)) == pair.public:
                    return StoredKey(header, pair)
            except InvalidKey:
                pass
            pair.wipe()
            raise HomeUnusable(path=str(path), reason="it is damaged: its secret and its public key do not match")


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
