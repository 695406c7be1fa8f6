"""Descriptor broker: opens what the sandbox of a child keeps closed, and what the child may have all the same.

An identity's process makes no Unix sockets: it gets connections to the network process, to the gateway, and to what its
owner has granted. Nor does the network process: it gets connections to the vault, and reads ``config.toml``, which lies
beside the vault.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.identity_sockets import connect_as
from fastn_p2p_actors.runtime.separate_users import ProcessAccount, as_user
from fastn_p2p_actors.storage.permission_store import PermissionStore
from fastn_p2p_client.errors import Forbidden, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.permissions import Permissions

_PREFIX: Final = "identity-"

log = logging.getLogger("supervisor")


class DescriptorBroker:
    """Opens descriptors for the daemon's children.

    Args:
        home: home of the daemon.
        account_of: return the account of an identity; None if it has the user of this process.
    """

    def __init__(self, home: Home, account_of: Callable[[str], ProcessAccount | None] = lambda identity: None) -> None:
        self._own = (home.mailbox("network"), home.control_socket)
        self._vault = home.mailbox("vault")
        self._config = home.config_file
        self._identities = home.identities
        self._permissions = PermissionStore(home)
        self._account_of = account_of

    def open(self, child: str, request: wire.OpenSocket | wire.OpenConfig) -> int:
        """Return a descriptor for a child, which may make the request.

        Raises:
            Forbidden: the owner has not granted the path.
            OSError: it could not be opened.
        """
        if isinstance(request, wire.OpenConfig):
            return os.open(self._config, os.O_RDONLY | os.O_CLOEXEC)
        return self._connect(child, request.path).detach()

    def _connect(self, child: str, path: str) -> socket.socket:
        """Return a connected, non-blocking socket for a child.

        Raises:
            Forbidden: the child is no identity whose owner has granted the path, nor the network process.
            OSError: the connection failed.
        """
        if child == "network" and Path(path) == self._vault:
            return self._connect_to_own(self._vault, "")
        identity = child.removeprefix(_PREFIX)
        if identity != child:
            if Path(path) in self._own:
                return self._connect_to_own(Path(path), identity)
            granted = self._granted(identity)
            if f"connect unix:{os.path.normpath(path)}" in granted:
                writable = [self._identities / identity, *map(Path, Permissions.of(granted).write)]
                return self._connect_to(Path(os.path.normpath(path)), writable, self._account_of(identity))
        raise Forbidden(role=child, request=f"a connection to {path[:200]!r}")

    def _granted(self, identity: str) -> tuple[str, ...]:
        try:
            return self._permissions.read(identity).all_lines()
        except P2PError as error:
            log.error("%s", error)
            return ()

    def _is_own(self, found: os.stat_result) -> bool:
        """Return whether the file is a socket of the daemon."""
        directory = self._own[0].parent
        for each in (*directory.iterdir(), *self._own):
            with suppress(OSError):
                if os.path.samestat(each.stat(), found):
                    return True
        return False

    def _connect_to_own(self, path: Path, identity: str) -> socket.socket:
        """Return a connection to a socket of the daemon, in the name of an identity unless that is empty.

        It follows no link: the network process may change the directory of the sockets.
        """
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            return connect_as(identity, Path(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)

    def _connect_to(self, path: Path, writable: list[Path], account: ProcessAccount | None) -> socket.socket:
        """Return a connected socket, if the user of the account may connect there.

        The path must not lead to a socket of the daemon, nor out of a directory to which the protocol's code may write:
        it could replace what is there by a link, at any time. So the file is opened first, and what was opened is
        checked and used.
        """
        with _as_identity(account):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found = Path(f"/proc/self/fd/{descriptor}").readlink()
            is_outside = any(
                path.is_relative_to(each) and not found.is_relative_to(each.resolve()) for each in writable
            )
            if is_outside or self._is_own(os.fstat(descriptor)):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            made.setblocking(False)
            with _as_identity(account):
                made.connect(f"/proc/self/fd/{descriptor}")
        except BaseException:
            made.close()
            raise
        finally:
            os.close(descriptor)
        return made


def _as_identity(account: ProcessAccount | None) -> AbstractContextManager[None]:
    return nullcontext() if account is None else as_user(account.uid, account.gid)
