"""Sockets: connect to an address, or listen on one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from fastn_p2p_client.ipc.unix_sockets import connect_unix

from .service_address import ServiceAddress

_BACKLOG: Final = 1024
"""Connections that wait to be accepted. The kernel uses ``net.core.somaxconn`` if that is less."""


class AddressInUse(OSError):
    """A process already listens on the address."""


# ── connecting ───────────────────────────────────────────────────────────────────────────────────


async def open_connection(address: ServiceAddress) -> socket.socket:
    """Return a non-blocking socket that is connected to ``address``, with TCP_NODELAY.

    Raises:
        OSError: the connection failed. ``strerror`` is the reason, without the address.
    """
    if address.path:
        try:
            return await connect_unix(Path(address.path))
        except OSError as error:
            raise _without_address(error) from None
    last: OSError | None = None
    for family, kind, protocol, _, where in await _resolve(address):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, where)
            _set_options(made)
        except OSError as error:
            made.close()
            last = _without_address(error)
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise last or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


async def _resolve(address: ServiceAddress, flags: int = 0) -> list[tuple[Any, ...]]:
    """Return the result of ``getaddrinfo``. Uses a thread, unless the host is an IP address."""
    arguments: dict[str, Any] = {"type": socket.SOCK_STREAM, "flags": flags | socket.AI_NUMERICHOST}
    try:
        return list(socket.getaddrinfo(address.host, address.port, **arguments))
    except socket.gaierror:
        arguments["flags"] = flags
    try:
        return list(await asyncio.get_running_loop().getaddrinfo(address.host, address.port, **arguments))
    except (socket.gaierror, UnicodeError):
        raise OSError(errno.EADDRNOTAVAIL, "the host name is unknown") from None


def _without_address(error: OSError) -> OSError:
    """Return the error without the address that asyncio adds to its message."""
    return type(error)(error.errno, os.strerror(error.errno)) if error.errno else error


def _set_options(connection: socket.socket) -> None:
    """Set options of a TCP connection: send small writes at once, and notice a peer that vanished."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


# ── listening ────────────────────────────────────────────────────────────────────────────────────


class Listener:
    """A socket that accepts connections until it is closed.

    Attributes:
        address: its address, with the port that the kernel has chosen.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        name = bound.getsockname()
        self.address = (
            ServiceAddress("", 0, name) if bound.family == socket.AF_UNIX else ServiceAddress(name[0], name[1])
        )
        self._file = _file_id(self.address.path)

    async def accept(self) -> socket.socket:
        """Wait for the next connection. Return its non-blocking socket, with TCP_NODELAY.

        Raises:
            OSError: the process has too many open files. Connections wait meanwhile.
        """
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                _set_options(connection)
            except ConnectionError:
                continue  # the client has disconnected
            return connection

    def close(self) -> None:
        """Stop listening. Remove the file of a Unix socket, unless another process has replaced it."""
        self._socket.close()
        path = self.address.path
        if path and self._file == _file_id(path):
            with contextlib.suppress(OSError):
                Path(path).unlink()


async def open_listener(address: ServiceAddress) -> Listener:
    """Listen on ``address``. Only this user can connect to a Unix socket. A stale Unix socket is replaced.

    Raises:
        AddressInUse: another process listens on the address.
        OSError: the address cannot be used. ``strerror`` is the reason.
    """
    if address.path:
        _remove_stale_socket(address.path)
        return _bind(socket.AF_UNIX, address.path)
    family, _, _, _, where = (await _resolve(address, socket.AI_PASSIVE))[0]
    return _bind(family, where)


def _bind(family: int, where: Any) -> Listener:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if family == socket.AF_UNIX:
            os.fchmod(made.fileno(), 0o600)  # before bind, so that the file never has another mode
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_BACKLOG)
        return Listener(made)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(error.errno, "another process already listens there") from None
        raise _without_address(error) from None


def _remove_stale_socket(path: str) -> None:
    """Remove the file of a Unix socket on which no process listens.

    Raises:
        AddressInUse: a process listens on it, or the file is not a socket.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise AddressInUse(errno.EADDRINUSE, "the file already exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError:
            pass  # a full queue, or a socket of another user: a process listens
    raise AddressInUse(errno.EADDRINUSE, "another process already listens there")


def _file_id(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file."""
    if not path:
        return None
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
