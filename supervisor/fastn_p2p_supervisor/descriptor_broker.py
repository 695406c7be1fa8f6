"""Descriptor broker: opens what the sandbox of a child keeps closed, and what the child may have all the same.

An identity's process makes no Unix sockets: it gets connections to the network process, to the gateway, and to what its
owner has granted. The network process reads ``config.toml``, which lies beside the vault.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.identity_sockets import connect_as
from fastn_p2p_actors.storage.permission_store import PermissionStore
from fastn_p2p_client.errors import Forbidden, P2PError
from fastn_p2p_client.home import Home

_PREFIX: Final = "identity-"

log = logging.getLogger("supervisor")


class DescriptorBroker:
    """Opens descriptors for the daemon's children.

    Args:
        home: home of the daemon.
    """

    def __init__(self, home: Home) -> None:
        self._own = (home.mailbox("network"), home.control_socket)
        self._config = home.config_file
        self._permissions = PermissionStore(home)

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
            Forbidden: the child is no identity, or its owner has not granted the path.
            OSError: the connection failed.
        """
        identity = child.removeprefix(_PREFIX)
        if identity != child:
            if Path(path) in self._own:
                return connect_as(identity, Path(path))
            if self._is_granted(identity, path):
                return _connect(path)
        raise Forbidden(role=child, request=f"a connection to {path[:200]!r}")

    def _is_granted(self, identity: str, path: str) -> bool:
        try:
            return f"connect unix:{os.path.normpath(path)}" in self._permissions.read(identity).all_lines()
        except P2PError as error:
            log.error("%s", error)
            return False


def _connect(path: str) -> socket.socket:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path with a zero byte")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made
