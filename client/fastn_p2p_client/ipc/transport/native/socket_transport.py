"""asyncio's transport of a connected socket, with TLS or without."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ....limits import HANDSHAKE_IVL_MS

if TYPE_CHECKING:
    from ssl import SSLContext

_SILENT: Final[dict[type, type]] = {}
"""Subclass of each class of transports that gives no warning at its end."""


async def make_transport(
    protocol: Callable[[], asyncio.BaseProtocol], sock: socket.socket, tls: SSLContext | None, *, accepted: bool
) -> None:
    """Have the running loop read and write the socket for the protocol.

    Args:
        protocol: returns the protocol.
        sock: connected socket.
        tls: encrypts a TCP connection.
        accepted: True if the peer has opened the connection: this side is the server of TLS.

    Raises:
        OSError: the handshake of TLS failed, or the socket.
        RuntimeError: the loop cannot use the socket.
    """
    loop = asyncio.get_running_loop()
    timeout = HANDSHAKE_IVL_MS / 1000
    if tls is None:
        if isinstance(loop, asyncio.BaseEventLoop):  # its other method imports TLS
            await loop.create_unix_connection(protocol, sock=sock)
        else:  # uvloop's method of that name does not keep the socket while it waits
            await loop.connect_accepted_socket(protocol, sock)
    elif accepted:
        await loop.connect_accepted_socket(protocol, sock, ssl=tls, ssl_handshake_timeout=timeout)
    else:
        await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname="", ssl_handshake_timeout=timeout)


def silence_end(transport: asyncio.Transport) -> None:
    """Keep asyncio's transport from warning that nobody closed it. The owner of the connection warns.

    A transport cannot be closed once its loop is. Its owner closes the socket then, and the garbage collector may
    finalize the transport before that owner.
    """
    kind = type(transport)
    if "_sock" in getattr(transport, "__dict__", ()):  # uvloop's has none, and gives no warning
        if kind not in _SILENT:
            _SILENT[kind] = type(kind.__name__, (kind,), {"__del__": _close_socket})
        transport.__class__ = _SILENT[kind]


def _close_socket(transport: Any) -> None:
    if transport._sock is not None:
        transport._sock.close()
