"""Sockets of services: connected to an address, or listening on one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from .service_address import ServiceAddress

_BACKLOG: Final = 1024
"""Connections that wait to be accepted; the kernel takes ``net.core.somaxconn`` when that is less."""
_TRY_AGAIN: Final = 0.02
"""Seconds until a Unix socket whose queue is full is tried again; nothing tells when there is room."""


class AddressInUse(OSError):
    """Something listens there already."""


# ── connecting ───────────────────────────────────────────────────────────────────────────────────


async def open_connection(address: ServiceAddress) -> socket.socket:
    """A non-blocking socket that is connected to ``address``, small writes sent at once.

    Raises:
        OSError: nobody takes the connection there; ``strerror`` says why without naming the address.
    """
    if address.path:
        return await _connected_unix(address.path)
    last: OSError | None = None
    for family, kind, protocol, _, where in await _resolved(address):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, where)
            _prepare(made)
        except OSError as error:
            made.close()
            last = _plain(error)
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise last or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


async def _connected_unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        while True:
            try:
                made.connect(path)
            except BlockingIOError:  # its queue is full, and the kernel does not go on by itself
                await asyncio.sleep(_TRY_AGAIN)
            else:
                return made
    except OSError as error:
        made.close()
        raise _plain(error) from None
    except BaseException:
        made.close()
        raise


async def _resolved(address: ServiceAddress, flags: int = 0) -> list[tuple[Any, ...]]:
    """What ``getaddrinfo`` says; in a thread, unless the host is an IP address."""
    arguments: dict[str, Any] = {"type": socket.SOCK_STREAM, "flags": flags | socket.AI_NUMERICHOST}
    try:
        return list(socket.getaddrinfo(address.host, address.port, **arguments))
    except socket.gaierror:
        arguments["flags"] = flags
    try:
        return list(await asyncio.get_running_loop().getaddrinfo(address.host, address.port, **arguments))
    except (socket.gaierror, UnicodeError):
        raise OSError(errno.EADDRNOTAVAIL, "its name is not known") from None


def _plain(error: OSError) -> OSError:
    """Without the address that asyncio writes into it."""
    return type(error)(error.errno, os.strerror(error.errno)) if error.errno else error


def _prepare(connection: socket.socket) -> None:
    """Settings of every TCP connection: no waiting to fill a packet, and a peer that vanished is noticed."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


# ── listening ────────────────────────────────────────────────────────────────────────────────────


class Listener:
    """A socket that takes connections, until it is closed.

    Attributes:
        address: where it is, with the port that the kernel has chosen.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        name = bound.getsockname()
        self.address = (
            ServiceAddress("", 0, name) if bound.family == socket.AF_UNIX else ServiceAddress(name[0], name[1])
        )
        self._file = _identity_of(self.address.path)

    async def accept(self) -> socket.socket:
        """The next connection, non-blocking, small writes sent at once.

        Raises:
            OSError: there are too many open files; connections wait meanwhile.
        """
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                _prepare(connection)
            except ConnectionError:
                continue  # it has gone again
            return connection

    def close(self) -> None:
        """Takes no more connections, and removes the Unix socket unless somebody has put another one there."""
        self._socket.close()
        path = self.address.path
        if path and self._file == _identity_of(path):
            with contextlib.suppress(OSError):
                Path(path).unlink()


async def open_listener(address: ServiceAddress) -> Listener:
    """Listens there. A Unix socket is this user's alone; one that nobody listens on any more is replaced.

    Raises:
        AddressInUse: somebody listens there.
        OSError: it cannot be listened on; ``strerror`` says why.
    """
    if address.path:
        _clear(address.path)
        return _bound(socket.AF_UNIX, address.path)
    family, _, _, _, where = (await _resolved(address, socket.AI_PASSIVE))[0]
    return _bound(family, where)


def _bound(family: int, where: Any) -> Listener:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if family == socket.AF_UNIX:
            os.fchmod(made.fileno(), 0o600)  # before bind: the file gets it at once
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_BACKLOG)
        return Listener(made)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(error.errno, "something listens there already") from None
        raise _plain(error) from None


def _clear(path: str) -> None:
    """Removes a socket that nobody listens on.

    Raises:
        AddressInUse: somebody does, or it is something else than a socket.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise AddressInUse(errno.EADDRINUSE, "there is a file of that name, which is no socket")
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
            pass  # a full queue, or another user's: somebody is there
    raise AddressInUse(errno.EADDRINUSE, "something listens there already")


def _identity_of(path: str) -> tuple[int, int] | None:
    """Device and inode."""
    if not path:
        return None
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
