"""Identities and their bindings in the home directory.

::

    identities/<name>/identity.json                                {"name", "id52", "created", "online"}
    identities/<name>/protocols/<Protocol>/<instance>/config.json  the binding: see BindingFile
    identities/<name>/protocols/<Protocol>/<instance>/.kept        the binding was removed, its workspace kept
    identities/.trash-*/                                           directories that are being deleted

The gateway writes, identity processes read. An identity exists if its ``identity.json`` does, a binding if its
``config.json`` does. A change that is interrupted before that has no effect. The directory of a ``config.json`` is the
binding's workspace. A damaged file affects only what it describes.
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
    IdentityElsewhere,
    IdentityExists,
    IdentityNotFound,
    IdentityRevoked,
    InvalidKey,
    InvalidName,
    StorageDamaged,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE, IdentityInfo, IdentityLimits
from fastn_p2p_client.keys import PublicKey, proven_key
from fastn_p2p_client.names import NamedThing, check_name

from .atomic_files import delete_trash, make_directory, remove_file, remove_tree, rename, write_atomically
from .shared_directories import share_identity, share_workspace

_IDENTITY: Final = "identity.json"
_BINDING: Final = "config.json"
_PENDING: Final = ".config.json.pending"
CREATED: Final = ".created"
"""File in a workspace: ``on_create`` has been called."""
_KEPT: Final = ".kept"
"""File in a workspace without a binding: its files wait until the instance is added again."""
_MAX_COUNTED: Final = 100_000
"""Files of a workspace that are counted."""
_LARGEST: Final = 32 * 1024 * 1024
"""Bytes of the largest file that is read: a config that arrived in one message fits."""

DATA_ELSEWHERE: Final = "data-elsewhere"
"""File in a workspace that its protocol writes: the second line says where it has data outside of the workspace."""
_MAX_LOCATION: Final = 300
_MARKS: Final = (_PENDING, CREATED, _KEPT)
"""Names of the daemon's own files in a workspace, beside ``config.json``."""

T = TypeVar("T")
Record = TypeVar("Record", bound=msgspec.Struct)


class IdentityFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``identity.json``."""

    name: str
    id52: str
    created: str
    """UTC, ISO 8601."""
    online: bool = False
    """True if the owner wants it online."""
    limits: IdentityLimits = IdentityLimits()
    listed: bool = True
    """False if its record must not be published to directories and the LAN."""
    revoked: str = ""
    """Time at which it was revoked, in UTC, ISO 8601; empty if it was not."""
    successor: str = ""
    """ID52 of the identity that takes its place; empty without one."""
    idle: int = 0
    """Seconds without use after which its process ends until it is called; 0 for never."""
    owner: str = ""
    """Name of the daemon that has its key, if this one is a replica; empty if the key is here."""

    def check_usable(self) -> None:
        """Raise IdentityRevoked if it was revoked."""
        if self.revoked:
            raise IdentityRevoked(identity=self.name, revoked=self.revoked, successor=self.successor)

    def check_owned(self, what: str) -> None:
        """Raise IdentityElsewhere if ``what`` needs the key, which is at another daemon."""
        if self.owner:
            raise IdentityElsewhere(identity=self.name, owner=self.owner, what=what)

    @property
    def key(self) -> PublicKey:
        return PublicKey(self.id52)

    def info(self) -> IdentityInfo:
        return IdentityInfo(
            name=self.name,
            id52=self.id52,
            online=self.online,
            created=self.created,
            limits=self.limits,
            listed=self.listed,
            revoked=self.revoked,
            successor=self.successor,
            idle=self.idle,
            owner=self.owner,
        )


class BindingFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``config.json``."""

    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    """Access list, as in ``AddProtocol``. If it is empty, the protocol's default applies."""
    program: bool = False
    """True if a program serves it."""
    code: str = ""
    """Entry point of the protocol when it was added, ``module:name``. Empty or wrong: it is searched."""
    stopped: bool = False
    """True if the owner has stopped it."""
    claims: str = ""
    """URL of the store in which its retried calls are claimed; empty for none."""
    config: msgspec.Raw = msgspec.Raw(b"{}")
    """JSON, parsed by the protocol's code."""


class LoadResult(NamedTuple, Generic[T]):
    """Records of a directory, sorted by name."""

    usable: list[T]
    damaged: list[StorageDamaged]


class PreparedBinding:
    """Binding whose files are written, and which does not exist until ``commit``."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    def commit(self) -> None:
        """Create the binding. It exists even after a power cut.

        Raises:
            StorageFailed: it does not exist.
        """
        rename(self._workspace / _PENDING, self._workspace / _BINDING)
        with contextlib.suppress(OSError):  # beside a config.json the file has no meaning
            (self._workspace / _KEPT).unlink(missing_ok=True)


class IdentityStore:
    """Identities of one home. It reads and writes small files and blocks meanwhile."""

    def __init__(self, home: Home) -> None:
        self._root = home.identities

    @classmethod
    def at(cls, root: Path) -> IdentityStore:
        """Return the store of a directory other than that of a home."""
        store = cls.__new__(cls)
        store._root = root
        return store

    # ── identities ───────────────────────────────────────────────────────────────────────────────

    def names(self) -> list[str]:
        """Return the names of all identities, sorted. Damaged and unfinished ones are included."""
        return [directory.name for directory in _directories(self._root, "an identity")]

    def identities(self, names: Iterable[str] | None = None) -> LoadResult[IdentityFile]:
        """Return all identities, or those in ``names``."""
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
        """Return one identity.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityNotFound: it does not exist.
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

    def exists(self, name: str) -> bool:
        """Return whether an identity exists, usable or damaged. Raises InvalidName."""
        return (self._directory(name) / _IDENTITY).exists()

    def usable_identity(self, name: str) -> IdentityFile:
        """Return one identity that is not revoked. Raises the errors of ``identity``, and IdentityRevoked."""
        record = self.identity(name)
        record.check_usable()
        return record

    def create_identity(self, record: IdentityFile) -> None:
        """Create an identity.

        Raises:
            IdentityExists: its file exists already, usable or damaged.
            StorageFailed: it could not be written.
        """
        directory = self._directory(record.name)
        if (directory / _IDENTITY).exists():
            raise IdentityExists(identity=record.name)
        make_directory(directory)
        share_identity(directory)
        self.write_identity(record)

    def write_identity(self, record: IdentityFile) -> None:
        """Replace the file of an identity. Raises StorageFailed."""
        path = self._directory(record.name) / _IDENTITY
        write_atomically(path, _as_text(record))

    def remove_identity(self, name: str) -> None:
        """Delete an identity with its bindings, if it exists. Raises StorageFailed."""
        directory = self._directory(name)
        if directory.exists():
            remove_tree(directory, self._root)

    # ── bindings ─────────────────────────────────────────────────────────────────────────────────

    def workspace(self, identity: str, protocol: str, instance: str) -> Path:
        """Return the directory of the binding, which may not exist. Raises InvalidName."""
        return (
            self._directory(identity)
            / "protocols"
            / check_name(protocol, "a protocol")
            / check_name(instance, "an instance")
        )

    def bindings(self, identity: str, protocol: str = "") -> LoadResult[BindingFile]:
        """Return all bindings of an identity, or those of one protocol."""
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
        """Return one binding.

        Raises:
            InvalidName: a name is not allowed.
            BindingNotFound: it does not exist.
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
        """Write all files of a binding, so that only ``commit`` is missing.

        Raises:
            BindingExists: it exists already, usable or damaged.
            StorageFailed: the files could not be written.
        """
        workspace = self.workspace(identity, record.protocol, record.instance)
        if (workspace / _BINDING).exists():
            raise BindingExists(identity=identity, protocol=record.protocol, instance=record.instance)
        make_directory(workspace)
        share_workspace(workspace)
        write_atomically(workspace / _PENDING, _as_text(record))
        return PreparedBinding(workspace)

    def write_binding(self, identity: str, record: BindingFile) -> None:
        """Replace the file of a binding. Raises StorageFailed."""
        write_atomically(self.workspace(identity, record.protocol, record.instance) / _BINDING, _as_text(record))

    def modified_at(self, identity: str, protocol: str, instance: str) -> float:
        """Return the Unix time of the last change of the binding's file; 0 if there is none."""
        try:
            return (self.workspace(identity, protocol, instance) / _BINDING).stat().st_mtime
        except OSError:
            return 0.0

    def is_kept(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether the binding was removed without its workspace."""
        workspace = self.workspace(identity, protocol, instance)
        return (workspace / _KEPT).exists() and not (workspace / _BINDING).exists()

    def keep_workspace(self, identity: str, protocol: str, instance: str) -> None:
        """Remove the binding and keep its workspace. Raises StorageFailed if nothing was changed."""
        workspace = self.workspace(identity, protocol, instance)
        write_atomically(workspace / _KEPT, b"")
        remove_file(workspace / _BINDING)

    def cancel_binding(self, identity: str, protocol: str, instance: str) -> None:
        """Undo ``prepare_binding``. A workspace that was kept from an earlier binding stays. Raises StorageFailed."""
        if self.is_kept(identity, protocol, instance):
            remove_file(self.workspace(identity, protocol, instance) / _PENDING)
        else:
            self.remove_binding(identity, protocol, instance)

    def data_size(self, identity: str, protocol: str, instance: str) -> tuple[int, int]:
        """Return the number of the protocol's files in its workspace, and their bytes.

        It blocks, and counts at most ``_MAX_COUNTED`` files.
        """
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

    def data_elsewhere(self, identity: str, protocol: str, instance: str) -> str:
        """Return where a binding has data that is not in its workspace, as its protocol says; empty if it has none."""
        try:
            lines = (self.workspace(identity, protocol, instance) / DATA_ELSEWHERE).read_text("utf-8", "replace")
        except OSError:
            return ""
        return "".join(lines.splitlines()[1:2])[:_MAX_LOCATION]

    def is_created(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether ``on_create`` of its protocol has been called."""
        return (self.workspace(identity, protocol, instance) / CREATED).exists()

    def remove_binding(self, identity: str, protocol: str, instance: str) -> None:
        """Delete a binding with its workspace, if it exists. Raises StorageFailed."""
        workspace = self.workspace(identity, protocol, instance)
        if workspace.exists():
            remove_tree(workspace, self._root)

    # ── after a crash ────────────────────────────────────────────────────────────────────────────

    def uncommitted_bindings(self) -> list[tuple[str, str, str]]:
        """Return identity, protocol and instance of bindings that were prepared and never committed."""
        return [
            (directory.name, protocol, instance)
            for directory in _directories(self._root, "an identity")
            for protocol, instance in self._workspaces(directory.name)
            if (self.workspace(directory.name, protocol, instance) / _PENDING).exists()
        ]

    def delete_trash(self) -> None:
        """Complete interrupted deletions."""
        delete_trash(self._root)

    def _directory(self, identity: str) -> Path:
        return self._root / check_name(identity, "an identity")

    def _workspaces(self, identity: str) -> Iterator[tuple[str, str]]:
        for protocol in _directories(self._directory(identity) / "protocols", "a protocol"):
            for instance in _directories(protocol, "an instance"):
                yield protocol.name, instance.name


def _directories(parent: Path, what: NamedThing) -> Iterator[Path]:
    """Yield the directories below ``parent`` whose names are valid for ``what``, sorted."""
    try:
        with os.scandir(parent) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return
    for name in found:
        with contextlib.suppress(InvalidName):
            yield parent / check_name(name, what)


def _read(path: Path, kind: type[Record]) -> Record | None:
    """Return the file's content; None if it does not exist. Raises StorageDamaged."""
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
    """Encode as JSON that is easy to read."""
    return msgspec.json.format(msgspec.json.encode(record)) + b"\n"
