"""Permissions that the owner has granted to bindings: ``identities/<name>/permissions.json``.

The file is beside the workspaces, not in them: protocol code can write to a workspace, and could grant itself what it
likes. The gateway writes it, and an identity's process once, before it runs protocol code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from fastn_p2p_client.errors import StorageDamaged
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.names import check_name

from .atomic_files import write_atomically

_FILE: Final = "permissions.json"
_LARGEST: Final = 4 * 1024 * 1024
"""Bytes of the largest file that is read."""


class PermissionFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``permissions.json``."""

    complete: bool = False
    """False until bindings that are older than permissions have been given what they declare."""
    granted: dict[str, tuple[str, ...]] = {}
    """Lines of ``Permissions`` by binding, ``Protocol/instance``: of those that its protocol declares."""
    added: dict[str, tuple[str, ...]] = {}
    """The same for what the owner has granted although the protocol does not declare it."""

    def of(self, binding: str) -> tuple[str, ...]:
        """Return what one binding may do."""
        return tuple(dict.fromkeys((*self.granted.get(binding, ()), *self.added.get(binding, ()))))

    def all_lines(self) -> tuple[str, ...]:
        """Return what all bindings together may do: they share one process."""
        return tuple(dict.fromkeys(line for binding in (*self.granted, *self.added) for line in self.of(binding)))


class PermissionStore:
    """Permissions of the identities of one home. It reads and writes small files and blocks meanwhile."""

    def __init__(self, home: Home) -> None:
        self._root = home.identities

    @classmethod
    def at(cls, root: Path) -> PermissionStore:
        """Return the store of a directory other than that of a home."""
        store = cls.__new__(cls)
        store._root = root
        return store

    def read(self, identity: str) -> PermissionFile:
        """Return the permissions of an identity.

        Raises:
            InvalidName: the name is no name of an identity.
            StorageDamaged: its file cannot be read.
        """
        path = self._path(identity)
        try:
            if path.stat().st_size > _LARGEST:
                raise StorageDamaged(path=str(path), reason=f"it has more than {_LARGEST} bytes")
            return msgspec.json.decode(path.read_bytes(), type=PermissionFile)
        except (FileNotFoundError, NotADirectoryError):
            return PermissionFile()
        except OSError as error:
            raise StorageDamaged(path=str(path), reason=error.strerror or str(error)) from error
        except UNDECODABLE as error:
            raise StorageDamaged(path=str(path), reason=f"it is damaged ({error})") from error

    def granted(self, identity: str, protocol: str, instance: str) -> tuple[str, ...]:
        """Return the permissions of one binding. Raises StorageDamaged."""
        return self.read(identity).of(f"{protocol}/{instance}")

    def added(self, identity: str, protocol: str, instance: str) -> tuple[str, ...]:
        """Return what the owner has granted beyond the binding's declaration. Raises StorageDamaged."""
        return self.read(identity).added.get(f"{protocol}/{instance}", ())

    def grant(
        self,
        identity: str,
        protocol: str,
        instance: str,
        lines: Iterable[str],
        added: Iterable[str] | None = None,
    ) -> None:
        """Replace the permissions of one binding. No lines remove them. Raises StorageDamaged or StorageFailed.

        Args:
            identity, protocol, instance: the binding.
            lines: what its protocol declares.
            added: what the owner grants beyond that; None keeps what it was.
        """
        before = self.read(identity)
        name = f"{protocol}/{instance}"
        granted = {**before.granted, name: tuple(lines)}
        extra = before.added if added is None else {**before.added, name: tuple(added)}
        self.write(identity, replace(before, granted=granted, added=extra))

    def complete(self, identity: str, declared: Callable[[], dict[str, tuple[str, ...]]]) -> PermissionFile:
        """Return the permissions of an identity, after those of bindings that are older than permissions were added.

        This happens once. Bindings that appear later without a command of the owner's get none.

        Args:
            identity: name of the identity.
            declared: returns the permissions that its bindings declare, by binding.

        Raises:
            StorageDamaged, StorageFailed: the file cannot be read or written.
        """
        before = self.read(identity)
        if before.complete:
            return before
        granted = {name: lines for name, lines in declared().items() if lines} | before.granted
        return self.write(identity, replace(before, complete=True, granted=granted))

    def write(self, identity: str, wanted: PermissionFile) -> PermissionFile:
        """Write the permissions of an identity, and return them as they are on disk. Raises as ``grant``."""
        made = replace(wanted, granted=_without_empty(wanted.granted), added=_without_empty(wanted.added))
        if made != self.read(identity):
            write_atomically(self._path(identity), msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        return made

    def _path(self, identity: str) -> Path:
        return self._root / check_name(identity, "an identity") / _FILE


def _without_empty(lines: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: each for name, each in lines.items() if each}
