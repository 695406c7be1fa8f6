"""Permissions that the owner has granted to bindings: ``identities/<name>/permissions.json``.

The file is beside the workspaces, not in them: protocol code can write to a workspace, and could grant itself what it
likes. The gateway writes it, and an identity's process once, before it runs protocol code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

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
    """Lines of ``Permissions`` by binding: ``Protocol/instance``."""

    def all_lines(self) -> tuple[str, ...]:
        """Return what all bindings together may do: they share one process."""
        return tuple(dict.fromkeys(line for lines in self.granted.values() for line in lines))


class PermissionStore:
    """Permissions of the identities of one home. It reads and writes small files and blocks meanwhile."""

    def __init__(self, home: Home) -> None:
        self._root = home.identities

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
        return self.read(identity).granted.get(f"{protocol}/{instance}", ())

    def grant(self, identity: str, protocol: str, instance: str, lines: Iterable[str]) -> None:
        """Replace the permissions of one binding. No lines remove them. Raises StorageDamaged or StorageFailed."""
        before = self.read(identity)
        granted = {**before.granted, f"{protocol}/{instance}": tuple(lines)}
        self._write(identity, before, {name: each for name, each in granted.items() if each})

    def complete(self, identity: str, declared: Callable[[], dict[str, tuple[str, ...]]]) -> PermissionFile:
        """Return the permissions of an identity, after those of bindings that are older than permissions were added.

        That happens once. Bindings that appear later without a command of the owner's get none.

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
        return self._write(identity, PermissionFile(complete=True), granted)

    def _write(self, identity: str, before: PermissionFile, granted: dict[str, tuple[str, ...]]) -> PermissionFile:
        made = PermissionFile(complete=before.complete, granted=granted)
        if made != self.read(identity):
            write_atomically(self._path(identity), msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        return made

    def _path(self, identity: str) -> Path:
        return self._root / check_name(identity, "an identity") / _FILE
