"""The identities' part of the home directory: who there is, and what each of them offers.

::

    identities/<name>/identity.json                                {"name", "id52", "created", "online"}
    identities/<name>/protocols/<Protocol>/<instance>/config.json  the binding: see BindingFile
    identities/<name>/protocols/<Protocol>/<instance>/.kept        the binding was removed, and its workspace kept
    identities/.trash-*/                                           what is being deleted

The gateway writes, identity processes read. An identity exists when its ``identity.json`` does, a binding when its
``config.json`` does: whatever is cut short before leaves nothing that counts. The directory of a ``config.json`` is
the binding's workspace. A file that is damaged costs what it describes, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from fastn_p2p_client.errors import (
    BindingExists,
    BindingNotFound,
    IdentityExists,
    IdentityNotFound,
    InvalidKey,
    InvalidName,
    StorageDamaged,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    IdentityInfo,
    IdentityLimits,
)
from fastn_p2p_client.keys import PublicKey, proven_key
from fastn_p2p_client.names import NamedThing, check_name

from .atomic_files import (
    delete_trash,
    make_directory,
    remove_file,
    remove_tree,
    rename,
    write_atomically,
)

__all__ = ["CREATED", "BindingFile", "IdentityFile", "IdentityStore", "LoadResult", "PreparedBinding"]

_IDENTITY: Final = "identity.json"
_BINDING: Final = "config.json"
_PENDING: Final = ".config.json.pending"
CREATED: Final = ".created"
"""In a workspace: ``on_create`` has been called."""
_KEPT: Final = ".kept"
"""In a workspace without a binding: its files wait for the instance to be added again."""
_MAX_COUNTED: Final = 100_000
"""Files of a workspace that are counted."""
_LARGEST: Final = 32 * 1024 * 1024
"""Bytes in a file that is still read: a config that arrived in one message fits."""

_MARKS: Final = (_PENDING, CREATED, _KEPT)
"""The daemon's own files in a workspace, beside ``config.json``."""

T = TypeVar("T")
Record = TypeVar("Record", bound=msgspec.Struct)


class IdentityFile(msgspec.Struct, frozen=True, kw_only=True):
    """``identity.json``."""

    name: str
    id52: str
    created: str
    """UTC, ISO 8601."""
    online: bool = False
    """Its owner wants it online."""
    limits: IdentityLimits = IdentityLimits()

    @property
    def key(self) -> PublicKey:
        return PublicKey(self.id52)

    def info(self) -> IdentityInfo:
        return IdentityInfo(
            name=self.name, id52=self.id52, online=self.online, created=self.created, limits=self.limits
        )


class BindingFile(msgspec.Struct, frozen=True, kw_only=True):
    """``config.json``."""

    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    """As in ``AddProtocol``: empty leaves it to the protocol."""
    program: bool = False
    """A program serves it, and not the daemon."""
    code: str = ""
    """Where the protocol's class was when it was added: ``module:name``. Empty, or no longer right: it is searched."""
    stopped: bool = False
    """Its owner wants it not to be served."""
    config: msgspec.Raw = msgspec.Raw(b"{}")
    """JSON, for the protocol's own code to read."""


class LoadResult(NamedTuple, Generic[T]):
    """What a directory holds, in order of names."""

    usable: list[T]
    damaged: list[StorageDamaged]


class PreparedBinding:
    """A binding whose directory and files are written, and which does not exist until ``commit``."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    def commit(self) -> None:
        """The binding exists, also after a power cut.

        Raises:
            StorageFailed: it does not exist.
        """
        rename(self._workspace / _PENDING, self._workspace / _BINDING)
        with contextlib.suppress(OSError):  # beside a config.json it means nothing
            (self._workspace / _KEPT).unlink(missing_ok=True)


class IdentityStore:
    """The identities of one home. Reads and writes small files, and blocks while it does."""

    def __init__(self, home: Home) -> None:
        self._root = home.identities

    # ── identities ───────────────────────────────────────────────────────────────────────────────

    def names(self) -> list[str]:
        """Those of all identities, in order. What is damaged, or still being made, is among them."""
        return [directory.name for directory in _directories(self._root, "an identity")]

    def identities(self, names: Iterable[str] | None = None) -> LoadResult[IdentityFile]:
        """All of them, or those among ``names``."""
        found: LoadResult[IdentityFile] = LoadResult([], [])
        for name in self.names() if names is None else names:
            try:
                found.usable.append(self.identity(name))
            except StorageDamaged as error:
                found.damaged.append(error)
            except IdentityNotFound:
                continue
        return found

    def identity(self, name: str) -> IdentityFile:
        """
        Raises:
            InvalidName: nothing can be called that.
            IdentityNotFound: there is none.
            StorageDamaged: its file cannot be read.
        """
        path = self._directory(name) / _IDENTITY
        record = _read(path, IdentityFile)
        if record is None:
            raise IdentityNotFound(identity=name)
        if record.name != name:
            raise StorageDamaged(path=str(path), reason=f"it is about {record.name[:80]!r}")
        try:
            proven_key(record.id52)
        except InvalidKey as error:
            raise StorageDamaged(path=str(path), reason=str(error)) from error
        return record

    def create_identity(self, record: IdentityFile) -> None:
        """
        Raises:
            IdentityExists: its directory is there already, usable or damaged.
            StorageFailed: nothing was changed.
        """
        directory = self._directory(record.name)
        if (directory / _IDENTITY).exists():
            raise IdentityExists(identity=record.name)
        make_directory(directory)
        self.write_identity(record)

    def write_identity(self, record: IdentityFile) -> None:
        """Replaces what is known of an identity; raises StorageFailed."""
        path = self._directory(record.name) / _IDENTITY
        write_atomically(path, _as_text(record))

    def remove_identity(self, name: str) -> None:
        """It goes whole, with its bindings; nothing happens when there is none. Raises StorageFailed."""
        directory = self._directory(name)
        if directory.exists():
            remove_tree(directory, self._root)

    # ── bindings ─────────────────────────────────────────────────────────────────────────────────

    def workspace(self, identity: str, protocol: str, instance: str) -> Path:
        """Where the binding's files are, or would be. Raises InvalidName."""
        return (
            self._directory(identity)
            / "protocols"
            / check_name(protocol, "a protocol")
            / check_name(instance, "an instance")
        )

    def bindings(self, identity: str, protocol: str = "") -> LoadResult[BindingFile]:
        """All bindings of an identity, or those of one protocol."""
        found: LoadResult[BindingFile] = LoadResult([], [])
        for name, instance in self._workspaces(identity):
            if protocol not in ("", name):
                continue
            try:
                found.usable.append(self.binding(identity, name, instance))
            except StorageDamaged as error:
                found.damaged.append(error)
            except BindingNotFound:
                continue
        return found

    def binding(self, identity: str, protocol: str, instance: str) -> BindingFile:
        """
        Raises:
            InvalidName: nothing can be called that.
            BindingNotFound: there is none.
            StorageDamaged: its file cannot be read.
        """
        path = self.workspace(identity, protocol, instance) / _BINDING
        record = _read(path, BindingFile)
        if record is None:
            raise BindingNotFound(identity=identity, protocol=protocol, instance=instance)
        if (record.protocol, record.instance) != (protocol, instance):
            raise StorageDamaged(path=str(path), reason="it is about another binding")
        return record

    def prepare_binding(self, identity: str, record: BindingFile) -> PreparedBinding:
        """Writes everything that the binding needs, so that only ``commit`` is missing.

        Raises:
            BindingExists: there is one, usable or damaged.
            StorageFailed: there is nothing that counts.
        """
        workspace = self.workspace(identity, record.protocol, record.instance)
        if (workspace / _BINDING).exists():
            raise BindingExists(identity=identity, protocol=record.protocol, instance=record.instance)
        make_directory(workspace)
        write_atomically(workspace / _PENDING, _as_text(record))
        return PreparedBinding(workspace)

    def write_binding(self, identity: str, record: BindingFile) -> None:
        """Replaces what is known of a binding; raises StorageFailed."""
        write_atomically(self.workspace(identity, record.protocol, record.instance) / _BINDING, _as_text(record))

    def modified_at(self, identity: str, protocol: str, instance: str) -> float:
        """When the binding's file was written, Unix time; 0 when there is none."""
        try:
            return (self.workspace(identity, protocol, instance) / _BINDING).stat().st_mtime
        except OSError:
            return 0.0

    def is_kept(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether the binding was removed without its workspace."""
        workspace = self.workspace(identity, protocol, instance)
        return (workspace / _KEPT).exists() and not (workspace / _BINDING).exists()

    def keep_workspace(self, identity: str, protocol: str, instance: str) -> None:
        """Remove the binding, and nothing else of its workspace. Raises StorageFailed: nothing has changed."""
        workspace = self.workspace(identity, protocol, instance)
        write_atomically(workspace / _KEPT, b"")
        remove_file(workspace / _BINDING)

    def cancel_binding(self, identity: str, protocol: str, instance: str) -> None:
        """Undo ``prepare_binding``: a workspace that was kept from before stays. Raises StorageFailed."""
        if self.is_kept(identity, protocol, instance):
            remove_file(self.workspace(identity, protocol, instance) / _PENDING)
        else:
            self.remove_binding(identity, protocol, instance)

    def data_size(self, identity: str, protocol: str, instance: str) -> tuple[int, int]:
        """Return how many files the protocol has in its workspace, and their bytes. Blocks; counts up to
        ``_MAX_COUNTED`` files."""
        files = size = 0
        workspace = self.workspace(identity, protocol, instance)
        for directory, _, names in os.walk(workspace):
            for name in names:
                path = Path(directory, name)
                if path.parent == workspace and (name == _BINDING or name in _MARKS):
                    continue
                with contextlib.suppress(OSError):
                    size += path.lstat().st_size
                files += 1
                if files == _MAX_COUNTED:
                    return files, size
        return files, size

    def is_created(self, identity: str, protocol: str, instance: str) -> bool:
        """Whether its protocol's code has been told that the binding exists."""
        return (self.workspace(identity, protocol, instance) / CREATED).exists()

    def remove_binding(self, identity: str, protocol: str, instance: str) -> None:
        """It goes whole, with its workspace; nothing happens when there is none. Raises StorageFailed."""
        workspace = self.workspace(identity, protocol, instance)
        if workspace.exists():
            remove_tree(workspace, self._root)

    # ── after a crash ────────────────────────────────────────────────────────────────────────────

    def uncommitted_bindings(self) -> list[tuple[str, str, str]]:
        """Identity, protocol and instance of bindings that were prepared and never committed."""
        return [
            (directory.name, protocol, instance)
            for directory in _directories(self._root, "an identity")
            for protocol, instance in self._workspaces(directory.name)
            if (self.workspace(directory.name, protocol, instance) / _PENDING).exists()
        ]

    def sweep(self) -> None:
        """Deletes what was being deleted."""
        delete_trash(self._root)

    def _directory(self, identity: str) -> Path:
        return self._root / check_name(identity, "an identity")

    def _workspaces(self, identity: str) -> Iterator[tuple[str, str]]:
        for protocol in _directories(self._directory(identity) / "protocols", "a protocol"):
            for instance in _directories(protocol, "an instance"):
                yield protocol.name, instance.name


def _directories(parent: Path, what: NamedThing) -> Iterator[Path]:
    """Those below ``parent`` that have a name that ``what`` can have, in order."""
    try:
        found = sorted(parent.iterdir())
    except OSError:
        return
    for path in found:
        with contextlib.suppress(InvalidName):
            check_name(path.name, what)
            if path.is_dir():
                yield path


def _read(path: Path, kind: type[Record]) -> Record | None:
    """What the file holds, or None when there is no such file. Raises StorageDamaged."""
    try:
        if path.stat().st_size > _LARGEST:
            raise StorageDamaged(path=str(path), reason=f"it has more than {_LARGEST} bytes")
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageDamaged(path=str(path), reason=error.strerror or str(error)) from error
    except UNDECODABLE as error:
        raise StorageDamaged(path=str(path), reason=f"it is damaged ({error})") from error


def _as_text(record: msgspec.Struct) -> bytes:
    """JSON for people too."""
    return msgspec.json.format(msgspec.json.encode(record)) + b"\n"
